package httpapi

import (
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"seenby/domain"
)

// Whatever comes, the walk ends, what is accepted can be judged, and the count of items is encoding/json's.
func FuzzViewsBody(f *testing.F) {
	for _, s := range []string{
		twoViews, `{}`, `[]`, `{"views":[{}]}`, `{"views":[[],{"a":"\\"},"\"",-1e5,true,null]}`,
		`{"sent_at":"2026-11-23T12:00:00Z","views":[{"id":"` + viewUUID + `","post":"p","viewer":"v","context":{"app":"a","dwell_ms":1,"visible_ratio":1}}]}`,
		`{"\u0076iews":[{"p\u006fst":"p","viewer":"v","viewed_at":"2026-11-23T12:00:00+14:00"}],"x":{"y":["}","]"]}}`,
		`{"views":[{"post":"p","anonymous":"s","viewed_at":"2026-11-23T12:00:00Z"},{"post":"p","anonymous":"s","viewer":"v"}]}`,
		"{\"views\":[{\"post\":\"\xff\"}]}",
	} {
		f.Add([]byte(s))
	}
	people, err := newKnownPeople(100)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if validJSON(raw) != nil {
			return
		}
		var body viewsBody
		if parseViews(string(raw), &body) != nil {
			return
		}
		var plain struct{ Views []json.RawMessage }
		// encoding/json folds the case of names and keeps the last of repeated ones: compare only where that is moot.
		if err := json.Unmarshal(raw, &plain); err == nil && utf8.Valid(raw) && len(body.ignored) == 0 && len(plain.Views) != len(body.items) {
			t.Errorf("%d items, encoding/json reads %d", len(body.items), len(plain.Views))
		}
		met := meeting{known: people, tenant: acme}
		events, rejected := body.events(&met)
		accepted := 0
		for _, e := range events {
			switch e := e.(type) {
			case domain.ViewReported:
				accepted++
				if err := e.Check(); err != nil {
					t.Errorf("accepted %+v: %v", e, err)
				}
			case domain.PersonNamed:
				if err := domain.CheckID("viewer", e.ID); err != nil {
					t.Errorf("named %+v: %v", e, err)
				}
			}
		}
		if accepted+len(rejected) != len(body.items) {
			t.Errorf("%d accepted and %d rejected of %d", accepted, len(rejected), len(body.items))
		}
		var answer ViewsAccepted
		if err := json.Unmarshal(answerViews(accepted, rejected, body.ignored), &answer); err != nil || answer.Accepted != accepted || len(answer.Rejected) != len(rejected) {
			t.Errorf("the answer %s: %v", answerViews(accepted, rejected, body.ignored), err)
		}
	})
}

func FuzzPostBody(f *testing.F) {
	for _, s := range []string{`{"author":"a","body":"b","audience":"everyone","published_at":"2026-11-23T12:00:00Z"}`, `{}`, `[`, `{"author":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := parsePost(raw)
		if err != nil {
			var p *Problem
			if domain.CodeOf(err) != domain.CodeInvalid && !errors.As(err, &p) {
				t.Errorf("an internal error: %v", err)
			}
			return
		}
		if domain.CheckID("author", in.author) != nil || domain.CheckBody(in.body) != nil || domain.CheckTime("published_at", in.publishedAt) != nil {
			t.Errorf("accepted %+v", in)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("abc")
	f.Fuzz(func(t *testing.T, cursor string) {
		if at, err := openCursor(acme.Key, "p", cursor); (err == nil) != (cursor == "") || at != nil {
			t.Errorf("%q opened: %v", cursor, at)
		}
	})
}
