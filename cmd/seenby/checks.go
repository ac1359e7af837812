package main

import (
	"context"
	"sync"

	"seenby/domain"
)

// checks are what /readyz asks, by name. A role's check is named before the role has started.
type checks struct {
	mu sync.Mutex
	of map[string]func(context.Context) error
}

func (c *checks) set(name string, check func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]func(context.Context) error{}
	}
	c.of[name] = check
}

var errStarting = domain.Errorf(domain.CodeUnavailable, "starting")

func starting(context.Context) error { return errStarting }

// all gives the checks as they will be when they are asked.
func (c *checks) all() map[string]func(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]func(context.Context) error, len(c.of))
	for name := range c.of {
		out[name] = func(ctx context.Context) error {
			c.mu.Lock()
			check := c.of[name]
			c.mu.Unlock()
			return check(ctx)
		}
	}
	return out
}
