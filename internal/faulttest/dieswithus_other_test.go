//go:build !linux

package faulttest_test

import "syscall"

func dieWithUs() *syscall.SysProcAttr { return nil }
