package testenv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Machine is a server in a container of its own that a test may break: kill, freeze, stop, and start again with the
// data and the addresses that it had. Not safe for concurrent use, but for several machines at once. It shares the
// host's network and listens on loopback: the engine would give a published port another number at each start.
type Machine struct {
	name   string
	c      *container
	docker client.APIClient
	ready  func(ctx context.Context) error // when it answers; Start waits for it
}

// startMachine does not wait until the server answers.
func startMachine(t testing.TB, name string, spec containerSpec, tmpfs map[string]string, ready func(context.Context) error) (*Machine, error) {
	t.Helper()
	docker, err := dockerClient()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	spec.host = func(h *dockercontainer.HostConfig) { h.NetworkMode, h.Tmpfs = "host", tmpfs }
	c, err := startContainer(ctx, spec)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_, err := docker.ContainerRemove(ctx, c.GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil {
			t.Logf("testenv: remove %s: %v", name, err)
		}
	})
	return &Machine{name: name, c: c, docker: docker, ready: ready}, nil
}

// Kill ends the server at once, as kill -9 does.
func (m *Machine) Kill(ctx context.Context) error { return m.Signal(ctx, "KILL") }

// Signal sends a signal to the server's first process, which must end of it, and waits until it has.
func (m *Machine) Signal(ctx context.Context, signal string) error {
	_, err := m.docker.ContainerKill(ctx, m.c.GetContainerID(), client.ContainerKillOptions{Signal: signal})
	if err == nil {
		err = waitFor(ctx, m.down)
	}
	return m.wrap("signal "+signal, err)
}

// Stop ends the server in order, within seconds.
func (m *Machine) Stop(ctx context.Context, seconds int) error {
	_, err := m.docker.ContainerStop(ctx, m.c.GetContainerID(), client.ContainerStopOptions{Timeout: &seconds})
	return m.wrap("stop", err)
}

// Pause freezes every process of the server: connections stay, nothing answers. A process that waits for its disk
// cannot be frozen just then, and the engine thaws the others and says so: that is tried again for a while.
func (m *Machine) Pause(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	return m.wrap("pause", waitFor(ctx, func(ctx context.Context) error {
		_, err := m.docker.ContainerPause(ctx, m.c.GetContainerID(), client.ContainerPauseOptions{})
		return err
	}))
}

const pauseTimeout = 30 * time.Second

// Unpause lets them go on, with no idea of the time that has passed.
func (m *Machine) Unpause(ctx context.Context) error {
	_, err := m.docker.ContainerUnpause(ctx, m.c.GetContainerID(), client.ContainerUnpauseOptions{})
	return m.wrap("unpause", err)
}

// Start starts the server again and waits until it answers.
func (m *Machine) Start(ctx context.Context) error {
	if _, err := m.docker.ContainerStart(ctx, m.c.GetContainerID(), client.ContainerStartOptions{}); err != nil {
		return m.wrap("start", err)
	}
	return m.Wait(ctx)
}

// Wait waits until the server answers.
func (m *Machine) Wait(ctx context.Context) error {
	if err := waitFor(ctx, m.ready); err != nil {
		return m.c.withLogs(m.wrap("wait for", err))
	}
	return nil
}

// Logs are the end of what the server printed.
func (m *Machine) Logs() string {
	return m.c.withLogs(errors.New(m.name)).Error()
}

func (m *Machine) down(ctx context.Context) error {
	state, err := m.c.State(ctx)
	if err == nil && state.Running {
		err = errors.New("it still runs")
	}
	return err
}

func (m *Machine) wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, m.name, err)
	}
	return nil
}

// Ports of machines lie below those that Linux gives to outgoing connections: one of those could take the port of a
// server that is down, and the server could not come back.
const (
	portFirst = 12_000
	portLast  = 32_000
)

var ports struct {
	mu    sync.Mutex
	given map[int]bool
}

// FreePorts finds n ports of 127.0.0.1 that nobody listens on and that this process was not given before.
func FreePorts(n int) ([]int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	var free []int
	for tried := 0; len(free) < n; tried++ {
		if tried > 100*n {
			return nil, fmt.Errorf("of the ports %d to %d too few are free", portFirst, portLast)
		}
		port := portFirst + rand.IntN(portLast-portFirst) //nolint:gosec // no secret
		if ports.given[port] {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("try port %d: %w", port, err)
		}
		ports.given[port] = true
		free = append(free, port)
	}
	return free, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
