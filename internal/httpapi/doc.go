// Package httpapi is Seenby's REST interface: it checks what apps send, appends it to the log, and answers
// reads from the read models.
//
// New is its main entry. A 202 or 2xx on a write means that Kafka acknowledged every event of it; where that
// does not come in time the answer is 503 with Retry-After, and a repeat with the same ids is safe. Writes of
// views need no PostgreSQL. A post write that was appended never answers 5xx: where the reading back fails, it
// answers 202 with its position. Every error is application/problem+json (RFC 9457), made by one table from
// domain.Error (problem.go); what has no code there is logged and never sent.
//
// The package states the interfaces it needs (Log, Tenants, ReadModels, Erasures); cmd joins them with their adapters.
package httpapi
