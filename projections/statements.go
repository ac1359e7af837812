package projections

import (
	"fmt"
	"maps"
)

var statements = map[string]string{}

// SQL registers a statement under its name and gives it back. Every statement of the projections and of
// internal/postgres is made by it, as a package variable beside the function that runs it, so that one test
// can prepare them all against the migrated schema.
func SQL(name, sql string) string {
	if _, taken := statements[name]; taken {
		panic(fmt.Sprintf("projections: two statements are named %q", name))
	}
	statements[name] = sql
	return sql
}

// Statements are all statements of the packages that this program imports, by name.
func Statements() map[string]string { return maps.Clone(statements) }
