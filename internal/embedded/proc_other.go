//go:build !linux

package embedded

import (
	"os"
	"syscall"
)

func selfExecutable() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func inheritedDirPath() string { return "" }

func signalOnParentDeath(*syscall.SysProcAttr, syscall.Signal) {}

// worksIn cannot be told here, and a process that only may be a server is not ours to stop: postgres itself
// refuses to start beside another.
func worksIn(int, string) bool { return false }
