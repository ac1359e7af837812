package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tour is what a first user types after `seenby dev`; a test runs it as it is printed.
const tour = `export API=http://%ADDR% KEY=$(cat %KEYFILE%)
curl --json '{"author":"anna","body":"Hello"}' -X PUT -H "Authorization: Bearer $KEY" $API/v1/posts/hello
POSITION=$(curl -sS -D - -o /dev/null --json '{"views":[{"post":"hello","viewer":"ben","viewed_at":"'$(date -u +%FT%TZ)'"}]}' -H "Authorization: Bearer $KEY" $API/v1/views | tr -d '\r' | sed -n 's/^[Ss]eenby-[Pp]osition: //p')
curl -H "Authorization: Bearer $KEY" -H "Seenby-Wait-For: $POSITION" $API/v1/posts/hello
curl -H "Authorization: Bearer $KEY" $API/v1/posts/hello/viewers
`

// readyEvery is how often waitReady looks.
const readyEvery = 20 * time.Millisecond

// waitReady waits until every check of the service passes; false: ctx ended first.
func (s *service) waitReady(ctx context.Context) bool {
	ticker := time.NewTicker(readyEvery)
	defer ticker.Stop()
	for {
		ready := true
		for _, check := range s.checks.all() {
			ready = ready && check(ctx) == nil
		}
		if ready {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// greet tells a person where to go from here.
func (d *dev) greet(addr string, took time.Duration) {
	keyFile := filepath.Join(d.dir, devKeyFile)
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, keyFile); err == nil && filepath.IsLocal(rel) {
			keyFile = rel
		}
	}
	d.env.printf("\nSeenby is ready after %.1f s.\n\n", took.Seconds())
	d.env.printf("  API       http://%s\n  API key   %s   (tenant %s; also in %s)\n  Data      %s\n\n", addr, d.key, demoTenant, keyFile, d.dir)
	d.env.printf("Try it:\n\n%s\n", strings.NewReplacer("%ADDR%", addr, "%KEYFILE%", keyFile).Replace(tour))
	d.env.printf("Watch the verdicts: seenby tail verdicts --from start --data-dir %s\nStop with Ctrl-C; the data stays.\n", d.dir)
}
