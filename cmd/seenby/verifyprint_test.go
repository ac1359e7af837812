package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"seenby/domain"
	"seenby/internal/verify"
)

// What a run found is said in words that tell what to do.
func TestPrintVerification(t *testing.T) {
	report := &verify.Report{
		Tenants: []verify.Tenant{{Tenant: "demo", Partitions: []verify.Partition{{Partition: 3, Counts: verify.Counts{
			Reported: 1234, Counted: 1200, Refused: 34, Impressions: 1200, UniquePairs: 7,
			Reasons: map[domain.Reason]int64{domain.ReasonStale: 4, domain.ReasonDuplicate: 30},
		}}}}},
		Posts:     2,
		Differing: []verify.PostDifference{{Tenant: "demo", Post: "it's", ViewerRowsDiffer: true}, {Tenant: "demo", Post: "b", SpreadDiffers: true}},
		Undecided: verify.Undecided{
			Verdicts: 2, Waiting: 2, ParkedKeys: []string{"post p of tenant demo"},
			First: []verify.Waiting{{Tenant: "demo", Post: "p", Parked: true}, {Tenant: "demo", Post: "q", WaitsFor: []verify.WaitsFor{{Topic: "posts", Partition: 1, NextOffset: 9, Stands: 5}}}},
		},
		FindingsInAll: 1, Findings: []verify.Finding{{Tenant: "demo", Topic: "verdicts", Partition: 3, Offset: 17, What: "is wrong"}},
		Notes: []string{"something to know"},
	}
	var out bytes.Buffer
	(&environment{stdout: &out}).printVerification(report)
	for _, want := range []string{
		"demo    3              1,234    1,200       34        1,200             7  duplicate 30, stale 4\n", "demo p,", "waits for dead letters", "post p of tenant demo",
		"posts/1 to reach 9 (the read model stands at 5)", "Note: something to know.", "as many as by the log", "right in sum", "verdicts/3@17 is wrong (demo)", "DIFFERENT. Posts compared: 2. By the log: views",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("says nothing of %q:\n%s", want, &out)
		}
	}
	want := `2 posts differ from the log, and 1 record is not as it must be. ` + "`seenby verify --tenant demo --post 'it'\\''s'`"
	if got := whatToDo(report); !strings.HasPrefix(got, want) || !strings.Contains(got, "docs/operations.md") {
		t.Errorf("says %q", got)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// On a terminal the line is written over and taken away at the end; elsewhere there is none.
func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	bar := newProgressBar(&out, func() time.Time { return now })
	bar.verify(verify.Progress{Rows: 5})
	bar.clear()
	if out.Len() > 0 {
		t.Errorf("printed %q where there is no terminal", &out)
	}
	bar.w, bar.wide = &out, func() int { return 0 }
	bar.verify(verify.Progress{Rows: 12345})
	bar.verify(verify.Progress{Of: 4000})
	now = now.Add(2 * time.Second)
	bar.verify(verify.Progress{Of: 4000, Verdicts: 1000})
	bar.clear()
	lines := strings.Split(out.String(), "\r")
	if len(lines) != 6 || lines[1] != "reading the tables: 12,345 rows" || lines[3] != "reading the log: 1,000 of 4,000 verdicts, 25 %, 500 a second, 6s left" ||
		strings.TrimSpace(lines[4]) != "" || len(lines[4]) != len(lines[3]) {
		t.Errorf("%q", lines)
	}
	out.Reset()
	bar.wide = func() int { return 20 }
	bar.verify(verify.Progress{Rows: 12345})
	if strings.TrimSpace(out.String()) != "reading the tables:" {
		t.Errorf("in 20 columns: %q", &out)
	}
}
