// Package archtest holds the architecture as data: which package may import which. Its test compares the data
// with what `go list` says, in every plain `go test ./...`, so a new arrow is a decision and not an accident.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path that our own packages start with.
const module = "seenby/"

// allowed says which of our packages each package may import, by path below the module. A trailing "/..."
// stands for everything below a folder. Arrows point one way: cmd, internal, projections, domain.
var allowed = map[string][]string{
	"domain":          {},
	"topics":          {"domain"},
	"topics/eventspb": {},
	"migrations":      {},

	"projections":                {"domain"},
	"projections/posts":          {"projections", "domain"},
	"projections/bulk":           {"projections", "domain"},
	"projections/impressions":    {"projections", "projections/bulk", "domain"},
	"projections/uniqueviews":    {"projections", "projections/bulk", "domain"},
	"projections/timeseries":     {"projections", "projections/bulk", "domain"},
	"projections/people":         {"projections", "domain"},
	"projections/projectiontest": {"projections", "projections/bulk", "domain"},

	// Adapters: none imports another. What they have in common is in domain and projections.
	"internal/eventlog": {"domain", "topics", "topics/eventspb"},
	"internal/postgres": {"domain", "projections/...", "migrations"},
	"internal/httpapi":  {"domain", "projections/...", "internal/tenancy", "internal/strictjson"},
	"internal/embedded": {},
	"internal/adminapi": {"domain", "internal/tenancy", "internal/httpapi"}, // built in the frame of the api

	// The services state the interfaces they need; cmd joins them to adapters.
	"internal/tenancy":    {"domain"},
	"internal/gate":       {"domain", "projections/...", "internal/eventlog", "topics/eventspb"},
	"internal/projector":  {"domain", "projections"},
	"internal/keeper":     {"domain", "projections/..."},
	"internal/erasure":    {"domain"},
	"internal/deadletter": {"domain", "projections", "internal/tenancy"},
	"internal/verify":     {"domain", "projections/..."},
	"internal/throttle":   {"projections"},
	"internal/strictjson": {"domain"},
	"internal/webhook":    {"domain", "internal/strictjson"},
	"internal/importer":   {"domain", "projections", "projections/posts", "internal/tenancy", "internal/throttle", "internal/strictjson"},
	"internal/rebuild":    {"domain", "projections", "internal/throttle"},
	"internal/relay":      {"domain", "projections/...", "internal/webhook"},

	"internal/config":    {"domain"},
	"internal/telemetry": {"domain"},
	"internal/archtest":  {},
	"internal/testenv":   {"internal/embedded"},
	"internal/faulttest": {}, // tests alone

	"examples/core": {}, // somebody else's system: it knows what its README says, and nothing of ours

	"cmd/seenby": {"domain", "topics", "projections/...", "migrations", "internal/..."},
}

// restricted says which of our packages may import a library. Tests may use more.
var restricted = map[string][]string{
	"github.com/twmb/franz-go":              {"internal/eventlog", "internal/gate", "internal/embedded", "internal/testenv"},
	"github.com/jackc/pgx":                  {"projections/...", "internal/postgres", "internal/rebuild", "internal/relay", "internal/embedded", "internal/testenv"},
	"github.com/prometheus":                 {"internal/telemetry"},
	"github.com/danielgtaylor/huma":         {"internal/httpapi", "internal/adminapi"},
	"github.com/go-chi":                     {"internal/httpapi"},
	"github.com/testcontainers":             {"internal/testenv"},
	"github.com/alecthomas/kong":            {"cmd/seenby"},
	"google.golang.org/protobuf":            {"topics/eventspb", "internal/eventlog", "internal/gate"},
	"github.com/fergusstrange":              {"internal/embedded"},
	"github.com/twmb/franz-go/pkg/kfake":    {"internal/embedded", "internal/testenv"},
	"github.com/pressly/goose":              {"internal/postgres"},
	"go.opentelemetry.io/otel":              {"internal/telemetry"},
	"github.com/rogpeppe/go-internal/txtar": {"projections/projectiontest"},
	"github.com/go-json-experiment/json":    {"internal/httpapi", "internal/strictjson", "internal/importer", "internal/webhook"},
	"github.com/klauspost/compress":         {"internal/importer"},
	"github.com/maypok86/otter":             {"internal/gate", "internal/httpapi"},
	"github.com/KimMachineGun/automemlimit": {"internal/telemetry"},
	"github.com/standard-webhooks":          {"internal/webhook", "examples/core"},
	"code.dny.dev/ssrf":                     {"internal/webhook"},
	"google.golang.org/protobuf/encoding":   {"cmd/seenby", "internal/eventlog", "internal/gate"},
}

// pure lists what domain must not reach: there is no clock, I/O, randomness or context in it. The package
// time is allowed for its types; a test looks for time.Now.
var pure = []string{"context", "os", "io", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "database/sql", "log", "log/slog", "sync", "syscall", "runtime"}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// testsMayImport is what _test.go files may use beyond their package's own arrows.
var testsMayImport = []string{"internal/testenv", "projections/projectiontest"}

// violations compares packages with the data above.
func violations(pkgs []pkg) []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		may, known := allowed[name]
		if !known {
			out = append(out, name+" has no place in the architecture: add it to internal/archtest and to docs/architecture.md")
			continue
		}
		for _, imp := range p.Imports {
			if own, ok := strings.CutPrefix(imp, module); ok && !matches(may, own) {
				out = append(out, fmt.Sprintf("%s imports %s, which it may not", name, own))
			}
			for lib, users := range restricted {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !matches(users, name) && !narrower(imp, lib) {
					out = append(out, fmt.Sprintf("%s imports %s, which only %s may", name, imp, strings.Join(users, ", ")))
				}
			}
			if name == "domain" && slices.Contains(pure, imp) {
				out = append(out, "domain imports "+imp+": it must stay pure")
			}
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			own, ok := strings.CutPrefix(imp, module)
			if ok && own != name && !matches(may, own) && !matches(testsMayImport, own) && !matches(testsAlsoMay[name], own) {
				out = append(out, fmt.Sprintf("tests of %s import %s, which they may not", name, own))
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			out = append(out, name+" is in the architecture but not in the tree")
		}
	}
	slices.Sort(out)
	return out
}

// narrower tells whether a longer entry than lib speaks of the import.
func narrower(imp, lib string) bool {
	for other := range restricted {
		if len(other) > len(lib) && (imp == other || strings.HasPrefix(imp, other+"/")) {
			return true
		}
	}
	return false
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		folder, below := strings.CutSuffix(p, "/...")
		if name == folder || below && strings.HasPrefix(name, folder+"/") {
			return true
		}
	}
	return false
}

// testsAlsoMay are the arrows of single packages' tests, each with its reason.
var testsAlsoMay = map[string][]string{
	"internal/deadletter":        {"internal/postgres", "projections/posts"}, // its laws are about a real database and a real fold
	"internal/rebuild":           {"internal/postgres", "projections/..."},   // likewise
	"internal/relay":             {"internal/postgres"},                      // likewise
	"internal/postgres":          {"internal/relay"},                         // to prepare its statements
	"internal/eventlog":          {"topics/eventspb"},
	"projections/posts":          {"internal/postgres"}, // to migrate the database that the laws run on
	"projections/impressions":    {"internal/postgres"},
	"projections/uniqueviews":    {"internal/postgres"},
	"projections/timeseries":     {"internal/postgres"},
	"projections/people":         {"internal/postgres"},
	"projections/projectiontest": {"internal/postgres"},
	"projections":                {"internal/postgres"},
	"internal/projector":         {"internal/postgres"},
	"internal/testenv":           {"internal/postgres"},
	"internal/keeper":            {"internal/eventlog", "internal/gate"}, // readmission is a dance of both
	// Its benchmark has decoding beside it, its bound.
	"projections/bulk": {"internal/eventlog", "projections/impressions", "projections/uniqueviews"},
	// It breaks the whole, so it joins the parts as cmd does.
	"internal/faulttest": {"domain", "topics", "projections/...", "internal/eventlog", "internal/postgres", "internal/gate", "internal/projector", "internal/keeper"},
}
