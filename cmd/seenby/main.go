// Command seenby counts who saw what. It is one binary with many roles: see `seenby --help`.
//
// This package is the only place that wires: it reads the settings, opens Kafka and PostgreSQL, and joins the
// packages below internal, which know each other only by interfaces.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"seenby/internal/embedded"
)

func main() {
	// `seenby dev` starts this binary again to look after PostgreSQL; then nothing below runs.
	embedded.SupervisorMain()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
