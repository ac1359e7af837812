package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"seenby/domain"
)

// TestMigrate runs every command of docs/migrate.md, as it stands, on the samples of testdata/migrate, and reads what they
// brought.
func TestMigrate(t *testing.T) {
	text, err := os.ReadFile("../../docs/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(string(text))
	if len(blocks) != 4 {
		t.Fatalf("docs/migrate.md has %d blocks of shell, 4 are known", len(blocks))
	}
	binary, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/migrate")); err != nil {
		t.Fatal(err)
	}
	in, key := install(t)
	p := in.serve(key, "api,gate,keeper,projector")
	for _, block := range blocks {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), in.environ...), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v\n%s", block, err, out)
		}
	}
	eventually(t, time.Minute, "the counts to be read", func() error {
		var all struct{ Counts []importedCounts }
		p.must(http.StatusOK, "GET", "/v1/counts?post=hello&post=a,%20b&post=65f1c0aa01&post=65f1c0aa02&post=/hello&post=/about", nil, nil, &all)
		for i, want := range []struct{ impressions, viewers, imported int64 }{{120000, 0, 120000}, {7, 0, 7}, {120000, 8000, 120000}, {0, 0, 0}, {3, 0, -1}, {1, 0, -1}} {
			got := all.Counts[i]
			imported := int64(-1)
			if got.Imported != nil {
				imported = got.Imported.Impressions
			}
			if got.Impressions != want.impressions || got.UniqueViewers != want.viewers || imported != want.imported {
				return fmt.Errorf("the post %d in order: %+v, want %+v", i+1, got, want)
			}
		}
		return nil
	})
	var post map[string]any
	p.must(http.StatusOK, "GET", "/v1/posts/65f1c0aa01", nil, nil, &post)
	if post["author"] != "ann" || post["body"] != "Hello, \"all\"\nof you" || post["published_at"] != "2025-03-01T10:00:00Z" {
		t.Errorf("%v", post)
	}
	p.must(http.StatusOK, "GET", "/v1/posts/65f1c0aa02", nil, nil, &post)
	if post["body"] != `Grüße \o/` {
		t.Errorf("%v", post)
	}
	if records, err := in.records(domain.TopicViews); err != nil || len(records) != 4 {
		t.Errorf("%d views (%v), want those of people alone", len(records), err)
	}
	for _, name := range []string{"counts", "amity-posts", "amity-counts", "goatcounter"} {
		if _, err := os.Stat(filepath.Join(dir, name+".ndjson.rejected")); !os.IsNotExist(err) {
			t.Errorf("lines of %s were rejected", name)
		}
	}
}
