package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// LimitMemory tells Go's garbage collector of the container's memory limit, so that it works harder before
// the kernel kills the process: it aims at nine tenths of it. GOMEMLIMIT, where it is set, stays. Without a
// limit, or outside a container, nothing changes. An error is worth a warning and no more.
func LimitMemory(log *slog.Logger) error { return limitMemory(log, memlimit.FromCgroup) }

func limitMemory(log *slog.Logger, limit memlimit.Provider) error {
	bytes, err := memlimit.Set(memlimit.WithProvider(limit))
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup):
		return nil
	case err != nil:
		return fmt.Errorf("limit memory: %w", err)
	case bytes < math.MaxInt64:
		log.Info("memory limit", "memory_limit_bytes", bytes)
	}
	return nil
}
