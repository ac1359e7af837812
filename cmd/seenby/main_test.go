package main

import (
	"os"
	"testing"

	"seenby/internal/testenv"
)

// removeAtEnd are directories that several tests share.
var removeAtEnd []string

func TestMain(m *testing.M) {
	code := testenv.Main(m)
	for _, dir := range removeAtEnd {
		os.RemoveAll(dir) //nolint:errcheck // it is only tidier
	}
	os.Exit(code)
}
