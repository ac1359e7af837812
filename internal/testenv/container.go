package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

const (
	pollInterval = 100 * time.Millisecond
	pingTimeout  = 5 * time.Second
	logBytesMax  = 8 << 10 // of a container that did not start, in the error
)

type containerSpec struct {
	image string
	port  string // the one port to publish; empty: none, as with the host's network
	entry []string
	args  []string
	env   map[string]string
	host  func(*dockercontainer.HostConfig) // what the container has of the host; nil: the usual
}

type container struct {
	*testcontainers.DockerContainer
	spec    containerSpec
	address string // host:port of spec.port as seen from here; empty where that is
}

func imageName(variable, otherwise string) string {
	if image := os.Getenv(variable); image != "" {
		return image
	}
	return otherwise
}

// startContainer runs a container and returns when it runs, not when its server answers. The error is
// errNotHere where Docker does not answer or the image cannot be had.
func startContainer(ctx context.Context, spec containerSpec) (*container, error) {
	docker, err := dockerClient()
	if err != nil {
		return nil, err
	}
	if err := haveImage(ctx, docker, spec.image); err != nil {
		return nil, err
	}
	options := []testcontainers.ContainerCustomizer{
		testcontainers.WithEnv(spec.env),
		testcontainers.WithCmd(spec.args...),
		testcontainers.WithLabels(containerLabels()),
	}
	if spec.entry != nil {
		options = append(options, testcontainers.WithEntrypoint(spec.entry...))
	}
	if spec.port != "" {
		options = append(options, testcontainers.WithExposedPorts(spec.port))
	}
	if spec.host != nil {
		options = append(options, testcontainers.WithHostConfigModifier(spec.host))
	}
	c, err := testcontainers.Run(ctx, spec.image, options...)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", spec.image, err)
	}
	if spec.port == "" {
		return &container{DockerContainer: c, spec: spec}, nil
	}
	address, err := c.PortEndpoint(ctx, spec.port, "")
	if err != nil {
		return nil, fmt.Errorf("find the port of %s: %w", spec.image, err)
	}
	return &container{DockerContainer: c, spec: spec, address: address}, nil
}

// withLogs adds the end of the container's output to err.
func (c *container) withLogs(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	r, logErr := c.Logs(ctx)
	if logErr != nil {
		return errors.Join(err, logErr)
	}
	defer r.Close() //nolint:errcheck // only read
	text, _ := io.ReadAll(r)
	if len(text) > logBytesMax {
		text = text[len(text)-logBytesMax:]
	}
	return fmt.Errorf("%w; %s printed:\n%s", err, c.spec.image, text)
}

// dockerClient connects once, and sees to it that this process' containers will be removed.
var dockerClient = sync.OnceValues(func() (client.APIClient, error) {
	log.SetDefault(log.NewNoopLogger())
	// The child process removes what is left over; no image of a reaper has to be pulled for it.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return nil, fmt.Errorf("disable the reaper of testcontainers: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: Docker does not answer: %s", errNotHere, firstLine(err))
	}
	if err := removeContainers(ctx, docker, ownerLabel, staleAge); err != nil {
		return nil, fmt.Errorf("remove stale containers: %w", err)
	}
	return docker, startReaper()
})

// haveImage pulls an image that is not there, once: testcontainers would try until the context ends.
func haveImage(ctx context.Context, docker client.APIClient, image string) error {
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "testenv: pulling %s\n", image)
	pull, err := docker.ImagePull(ctx, image, client.ImagePullOptions{})
	if err == nil {
		err = pull.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: pull %s: %s", errNotHere, image, firstLine(err))
	}
	return nil
}

// waitFor polls until try succeeds or ctx ends.
func waitFor(ctx context.Context, try func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		tryCtx, cancel := context.WithTimeout(ctx, pingTimeout)
		err := try(tryCtx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer in time: %w", err)
		case <-tick.C:
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
