//go:build !faultclock

package main

import "time"

// clock is the time of day as the process sees it.
var clock = time.Now
