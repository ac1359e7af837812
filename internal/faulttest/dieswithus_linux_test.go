package faulttest_test

import "syscall"

// dieWithUs ends a child when this process dies, however it dies.
func dieWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
