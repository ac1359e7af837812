package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func helperLock() error {
	l, err := LockDir(os.Getenv("DIR"))
	if err != nil {
		return err
	}
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return l.Unlock()
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	h := startHelper(t, "lock", 0, "DIR="+dir)
	h.expect("locked")

	_, err := LockDir(dir)
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("second lock: %v, want a LockedError", err)
	}
	if locked.PID != h.cmd.Process.Pid || locked.Dir != dir {
		t.Errorf("holder is process %d on %s, want %d on %s", locked.PID, locked.Dir, h.cmd.Process.Pid, dir)
	}
	for _, want := range []string{dir, fmt.Sprint(h.cmd.Process.Pid), "stop it"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}

	h.kill() // a lock does not outlive its process
	l, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(dir); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("second lock in one process: %v", err)
	}
	if err := errors.Join(l.Unlock(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
	if l, err = LockDir(dir); err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	_ = l.Unlock()
}
