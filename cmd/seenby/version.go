package main

import "seenby/internal/telemetry"

type versionCommand struct{}

// Run prints what this binary is.
func (versionCommand) Run(env *environment) error { //nolint:unparam // as all commands are
	b := telemetry.ReadBuild()
	env.printf("seenby %s (%s, %s)\n", b.Version, b.Revision, b.Go)
	return nil
}
