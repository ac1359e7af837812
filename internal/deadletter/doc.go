// Package deadletter is what operators do with parked events: find them, look at them, redrive and discard them
// (DESIGN §3, ADR 0005).
//
// Desk is its main type. It works while the projectors run and while they do not: what it changes it changes under the
// lock of the partition's position, which a projector needs to write anything.
//
// Redrive tries letters again, a bounded batch per transaction (projections.Redrive): what can be applied by now is,
// exactly once, in the order of its key; what cannot stays with all that follows it. Records are read before the
// lock, since a log does not change. Ended anywhere, it can be run again.
//
// Discard gives letters up. The decision goes to the topic tenants and the letter to nothing, which no transaction
// spans, so it takes three steps: mark the letters, so that nothing applies them any more; append the decision; delete
// the letters. Ended between two of them, it can be run again, and until then redrive leaves the marked ones alone.
//
// It fails by CodeInvalid (what was asked makes no sense), CodeNotFound (no such letter), CodeConflict (letters stay, or
// were redriven meanwhile) and CodeUnavailable.
package deadletter
