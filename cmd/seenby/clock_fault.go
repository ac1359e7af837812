//go:build faultclock

package main

import (
	"os"
	"strings"
	"time"
)

// clock is the machine's, shifted by the duration that stands in the file named by FAULT_CLOCK, now. Only the
// fault harness builds this: no other way steps the clock of one process, for Go asks the kernel past every library
// that could be put before it.
func clock() time.Time {
	now := time.Now()
	text, err := os.ReadFile(os.Getenv("FAULT_CLOCK"))
	if err != nil {
		return now
	}
	step, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return now
	}
	return now.Round(0).Add(step) // without the monotonic reading, which no step moves
}
