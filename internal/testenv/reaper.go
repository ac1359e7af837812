package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const (
	ownerLabel   = "seenby.testenv"         // on every container of ours
	sessionLabel = "seenby.testenv.session" // and the process it belongs to

	// staleAge is older than any run of tests: what is left then was not removed by its reaper.
	staleAge = time.Hour

	reapVariable = "SEENBY_TESTENV_REAP"
	reapStopped  = "stopped\n" // last words of a process that ends in order

	// createGrace covers a container that the daemon was still making when its process was killed.
	createGrace = 3 * time.Second
)

var session = randomHex()

func containerLabels() map[string]string {
	return map[string]string{ownerLabel: "true", sessionLabel: session}
}

// startReaper runs this binary once more, as a child that waits for its standard input to end and then removes
// this session's containers.
func startReaper() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the test binary: %w", err)
	}
	// Neither output is inherited: "go test" would wait for it. Its own group keeps ^C away from it.
	reaper := exec.CommandContext(context.Background(), self)
	reaper.Env = append(os.Environ(), reapVariable+"="+session)
	reaper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := reaper.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the reaper: %w", err)
	}
	if err := reaper.Start(); err != nil {
		return fmt.Errorf("start the reaper: %w", err)
	}
	onStop(func(context.Context) error {
		_, writeErr := io.WriteString(stdin, reapStopped)
		if err := errors.Join(writeErr, stdin.Close(), reaper.Wait()); err != nil {
			return fmt.Errorf("remove containers (docker rm -fv $(docker ps -aqf label=%s=%s)): %w", sessionLabel, session, err)
		}
		return nil
	})
	return nil
}

// runChild does not return where this process is a reaper.
func runChild() {
	session := os.Getenv(reapVariable)
	if session == "" {
		return
	}
	words, _ := io.ReadAll(os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err == nil {
		err = removeContainers(ctx, docker, sessionLabel+"="+session, 0)
		if string(words) != reapStopped {
			time.Sleep(createGrace)
			err = errors.Join(err, removeContainers(ctx, docker, sessionLabel+"="+session, 0))
		}
	}
	cancel()
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// removeContainers removes the containers that carry label ("name" or "name=value") and are older than age.
func removeContainers(ctx context.Context, docker client.APIClient, label string, age time.Duration) error {
	list, err := docker.ContainerList(ctx, client.ContainerListOptions{
		All:     true,
		Filters: make(client.Filters).Add("label", label),
	})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for _, c := range list.Items {
		if time.Since(time.Unix(c.Created, 0)) < age {
			continue
		}
		_, err := docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		// Another process may be removing the same one.
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
