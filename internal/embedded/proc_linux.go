package embedded

import (
	"os"
	"strconv"
	"syscall"
)

// selfExecutable is this very binary, even if its file was replaced or lies where only its starter may go.
func selfExecutable() string { return "/proc/self/exe" }

// inheritedDirPath is a path by which a child reaches the directory that it inherits as descriptor 3, whoever may
// enter the directories above.
func inheritedDirPath() string {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return ""
	}
	return "/proc/self/fd/3"
}

// signalOnParentDeath has the kernel signal the child when we die.
func signalOnParentDeath(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// worksIn says whether the process lives and has dir as its working directory, as a postgres has its data.
func worksIn(pid int, dir string) bool {
	there, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/cwd")
	if err != nil {
		return false
	}
	here, err := os.Stat(dir)
	return err == nil && os.SameFile(here, there)
}
