package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The committed contract is the one that the code has, and the one that is served.
func TestOpenAPIIsCommitted(t *testing.T) {
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("..", "..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is not what the code says; run: go test ./internal/httpapi -update")
	}
	served := do(newWorld().api(t, Config{}), "GET", "/openapi.json", "", "Authorization", "")
	if !bytes.Equal(served.Body.Bytes(), got) {
		t.Error("/openapi.json serves another document")
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]any
				Headers map[string]any
			}
		}
	}
	if err := json.Unmarshal(got, &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("version %q, %v", doc.OpenAPI, err)
	}
	writes := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			for status, r := range op.Responses {
				switch problem := r.Content["application/problem+json"] != nil; {
				case problem != (status >= "4"):
					t.Errorf("%s %s: %s answers %v", method, path, status, r.Content)
				case !problem && method != "get":
					writes++
					if r.Headers["Seenby-Position"] == nil {
						t.Errorf("%s %s: %s has no Seenby-Position", method, path, status)
					}
				}
			}
		}
	}
	if writes < 10 || len(doc.Paths) < 9 {
		t.Errorf("%d answers of writes, %d paths", writes, len(doc.Paths))
	}
}
