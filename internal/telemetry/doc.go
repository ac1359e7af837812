// Package telemetry is how Seenby tells what it does: the logger and the closed list of its keys (keys.go), the
// Prometheus registry with every metric (metrics.go), and the memory limit of the process.
//
// Metrics is its main type. Its methods take only types of the standard library and of package domain, so
// that other packages call it through small interfaces or function fields of their own and need not know
// Prometheus.
//
// Guarantees: no label has a value that an app chooses. Nothing is labelled by post, by viewer or by tenant;
// what an app can bend (an HTTP method, an unmatched path) is folded into one value. Everything here is safe
// for concurrent use and none of it can fail a caller.
package telemetry
