package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Config bounds the api. A zero field takes its default.
type Config struct {
	RequestTimeout time.Duration // whole request, the time of Prefer: wait not counted. Default 10 s
	AppendTimeout  time.Duration // for Kafka's acknowledgement of all that a request appends. Default half the request timeout
	ApplyTimeout   time.Duration // for which a post write waits for the read models before it answers 202. Default 3/10 of the request timeout
	PollInterval   time.Duration // between two looks at the projections' positions while somebody waits. Default 20 ms
	CheckTimeout   time.Duration // for each dependency that /readyz asks. Default 2 s

	AppendsMax     int // requests that append at the same time; more wait for their turn. Default 512
	KnownPeopleMax int // people whose name this process remembers to have appended. Default 200,000

	ReadHeaderTimeout time.Duration // Default 5 s
	IdleTimeout       time.Duration // of a kept-alive connection. Default 2 min
	HeaderBytesMax    int           // Default 32 KiB: a position token takes up to 6 of them

	// OptionalChecks names the checks without which the process still does its work: /readyz says "degraded"
	// and 200. Default: postgres, since views are accepted without it.
	OptionalChecks []string
}

// Bounds of requests. They are part of the contract, so they are no settings.
const (
	requestBytesMax = 1 << 20
	viewsMax        = 1000
	postsMax        = 500
	countsPostsMax  = 100
	viewersLimitMax = 200
	viewersLimit    = 50

	timeSeriesBucketsMax = 1000 // 41 days of hours, or nearly three years of days; some 100 KB
	timeSeriesHours      = 24   // by default
	timeSeriesDays       = 30   // by default

	waitDefault   = 5 * time.Second
	waitMax       = 30 * time.Second
	waitLeast     = 250 * time.Millisecond // wait=0 asks whether it is passed, and that takes a look
	waitTokensMax = 16                     // of one Seenby-Wait-For header
	ignoredMax    = 20                     // names of unknown fields in one answer
	retryAfter    = "2"
	goneShare     = 20 // the part of the request timeout that a look for deleted posts may take: a write can do without
)

func (c Config) withDefaults() Config {
	set(&c.RequestTimeout, 10*time.Second)
	set(&c.AppendTimeout, c.RequestTimeout/2)
	set(&c.ApplyTimeout, c.RequestTimeout*3/10)
	set(&c.PollInterval, 20*time.Millisecond)
	set(&c.CheckTimeout, 2*time.Second)
	set(&c.AppendsMax, 512)
	set(&c.KnownPeopleMax, 200_000)
	set(&c.ReadHeaderTimeout, 5*time.Second)
	set(&c.IdleTimeout, 2*time.Minute)
	set(&c.HeaderBytesMax, 32<<10)
	if c.OptionalChecks == nil {
		c.OptionalChecks = []string{"postgres"}
	}
	return c
}

func set[T comparable](v *T, def T) {
	if *v == *new(T) {
		*v = def
	}
}

// Validate reports every problem of the settings, defaults filled in.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for name, d := range map[string]time.Duration{
		"request timeout": c.RequestTimeout, "append timeout": c.AppendTimeout, "apply timeout": c.ApplyTimeout,
		"poll interval": c.PollInterval, "check timeout": c.CheckTimeout,
		"read header timeout": c.ReadHeaderTimeout, "idle timeout": c.IdleTimeout,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("http: %s must not be negative", name))
		}
	}
	if c.AppendTimeout+c.ApplyTimeout > c.RequestTimeout {
		errs = append(errs, fmt.Errorf("http: append timeout + apply timeout (%v) must fit into the request timeout (%v)", c.AppendTimeout+c.ApplyTimeout, c.RequestTimeout))
	}
	if c.AppendsMax < 0 || c.KnownPeopleMax < 0 || c.HeaderBytesMax < 0 {
		errs = append(errs, errors.New("http: limits must not be negative"))
	}
	return errors.Join(errs...)
}

// Server is an http.Server with the configured bounds. A read that waits is the longest answer.
func (c Config) Server(handler http.Handler) *http.Server {
	c = c.withDefaults()
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: c.ReadHeaderTimeout,
		ReadTimeout:       c.ReadHeaderTimeout + c.RequestTimeout,
		WriteTimeout:      c.ReadHeaderTimeout + c.RequestTimeout + waitMax,
		IdleTimeout:       c.IdleTimeout,
		MaxHeaderBytes:    c.HeaderBytesMax,
	}
}
