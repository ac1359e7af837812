package keeper

import (
	"errors"
	"time"

	"seenby/domain"
)

// Config is what a keeper is told. The zero value of a field means its default.
type Config struct {
	// PendingMax is how many unresolved views are held per partition. Default 100,000, about 50 MB.
	PendingMax int
	// AppendMax is how many views are appended per partition in one go. Default 1,000: the gate is to judge
	// them beside fresh ones, not after them.
	AppendMax int
	// Every is how often settled views are looked for. Default 250 ms.
	Every time.Duration
}

const (
	pendingDefault = 100_000
	pendingMax     = 10_000_000
	appendDefault  = 1000
	appendMax      = 10_000
	everyDefault   = 250 * time.Millisecond
	everyLeast     = time.Millisecond
	everyMost      = time.Minute

	// pollEventsMax is how many verdicts are folded between two looks at the clock.
	pollEventsMax = 10_000
	// settleMax is how many waits one look-up asks about.
	settleMax = 5000
	// proofFor is how long after asking the end of views a view may be appended. The gate remembers ids for the
	// duplicate window, and DESIGN allows an hour of partition time; a minute leaves room for a slow append.
	proofFor = time.Minute
	// attemptsMax is how often a view is appended whose record vanishes.
	attemptsMax = 3
	// commitEvery is how often the hints are written.
	commitEvery = time.Second
	// askTimeout bounds one question to Kafka or the read model.
	askTimeout = 10 * time.Second
	// retryFirst to retryMost is how long the keeper waits after an error.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.PendingMax == 0 {
		c.PendingMax = pendingDefault
	}
	if c.AppendMax == 0 {
		c.AppendMax = appendDefault
	}
	if c.Every == 0 {
		c.Every = everyDefault
	}
	return c
}

// Validate reports every problem, each a CodeInvalid error that names its field.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	if c.PendingMax < 1 || c.PendingMax > pendingMax {
		problems = append(problems, domain.Invalid("pending_max", "must be 1 to %d", pendingMax))
	}
	if c.AppendMax < 1 || c.AppendMax > appendMax {
		problems = append(problems, domain.Invalid("append_max", "must be 1 to %d", appendMax))
	}
	if c.Every < everyLeast || c.Every > everyMost {
		problems = append(problems, domain.Invalid("every", "must be %v to %v", everyLeast, everyMost))
	}
	return errors.Join(problems...)
}
