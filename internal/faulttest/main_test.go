package faulttest

import (
	"os"
	"testing"

	"seenby/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
