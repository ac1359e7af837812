package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"seenby/domain"
)

func TestValues(t *testing.T) {
	const cursor = "a&b=c d/\u00e9"
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		verifier, err := standardwebhooks.NewWebhook(oldSecret)
		if err != nil {
			t.Error(err)
			return
		}
		if err := verifier.Verify(nil, r.Header); err != nil {
			t.Error(err)
		}
		if r.Method != http.MethodGet || r.ContentLength != 0 || r.URL.Query().Get("from") != "us" {
			t.Errorf("%s %s, %d bytes", r.Method, r.URL, r.ContentLength)
		}
		switch r.URL.Query().Get("cursor") {
		case "":
			if r.URL.Query().Has("cursor") {
				t.Error("the first page was asked for with a cursor")
			}
			fmt.Fprintf(w, `{"posts":[{"post":"p1","impressions":120000,"revision":11},{"post":"p2","impressions":0}],"next_cursor":%q}`, cursor)
		case cursor:
			fmt.Fprint(w, `{"posts":[]}`)
		default:
			t.Errorf("cursor %q", r.URL.Query().Get("cursor"))
		}
	})
	c := client(t, Options{})
	page, err := c.Values(t.Context(), e, "", time.Now())
	if want := []Value{{"p1", 120000, 11}, {"p2", 0, 0}}; err != nil || !slices.Equal(page.Values, want) || page.Next != cursor {
		t.Fatalf("%+v, %v", page, err)
	}
	page, err = c.Values(t.Context(), e, page.Next, time.Now())
	if err != nil || len(page.Values) != 0 || page.Next != "" {
		t.Fatalf("%+v, %v", page, err)
	}
	// Without a query of its own, and with one that url.Values would not keep as it is.
	for raw, want := range map[string]string{"https://h/": "https://h/?cursor=a%26b", "https://h/?b=2;c&a": "https://h/?b=2;c&a&cursor=a%26b"} {
		u, err := parseURL(raw, false)
		if err != nil {
			t.Fatal(err)
		}
		if addCursor(u, "a&b"); u.String() != want {
			t.Errorf("%s, not %s", u, want)
		}
	}
}

func TestABadPage(t *testing.T) {
	for _, tt := range []struct{ page, want string }{
		{``, "answer is empty"},
		{`<!DOCTYPE html><p>Log in</p>`, "not JSON, at byte 0: <!DOCTYPE html>"},
		{newSecret, "not JSON, at byte 0: whsec_***"},
		{`{"posts":[`, "not JSON, at byte 10"},
		{`{"posts":[]}{}`, "not JSON, at byte 12"},
		{`[]`, "must be a JSON object"},
		{`{}`, "posts: is required"},
		{`{"posts":null}`, "posts: is required"},
		{`{"posts":{}}`, "posts: must not be a JSON object"},
		{`{"posts":[],"next_curser":"x"}`, "next_curser: is no field of this answer"},
		{`{"posts":[],"total":5}`, "total: is no field of this answer"},
		{`{"posts":[],"posts":[]}`, "posts: stands twice"},
		{`{"posts":[],"next_cursor":5}`, "next_cursor: must not be a JSON number"},
		{`{"posts":[],"next_cursor":"` + strings.Repeat("x", 1001) + `"}`, "next_cursor: is 1001 bytes long; at most 1000"},
		{`{"posts":[{"impressions":1}]}`, "posts.0.post: is required"},
		{`{"posts":[{"post":"` + strings.Repeat("x", 256) + `","impressions":1}]}`, "posts.0.post: is 256 bytes long; at most 255"},
		{`{"posts":[{"post":"a\u0000","impressions":1}]}`, "posts.0.post: must be printable"},
		{"{\"posts\":[{\"post\":\"\xff\",\"impressions\":1}]}", "not JSON"},
		{`{"posts":[{"post":7,"impressions":1}]}`, "posts.0.post: must not be a JSON number"},
		{`{"posts":[{"post":"a","impressions":1},{"post":"a","impressions":2}]}`, "posts.1.post: stands twice"},
		{`{"posts":[{"post":"a"}]}`, "posts.0.impressions: is required"},
		{`{"posts":[{"post":"a","impressions":null}]}`, "posts.0.impressions: is required"},
		{`{"posts":[{"post":"a","impressions":-1}]}`, "posts.0.impressions: is -1"},
		{`{"posts":[{"post":"a","impressions":1.5}]}`, "posts.0.impressions: must be a whole number"},
		{`{"posts":[{"post":"a","impressions":9223372036854775808}]}`, "posts.0.impressions: must be a whole number"},
		{`{"posts":[{"post":"a","impressions":"1"}]}`, "posts.0.impressions: must not be a JSON string"},
		{`{"posts":[{"post":"a","impressions":1,"revision":-1}]}`, "posts.0.revision: is -1"},
	} {
		e := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, tt.page) })
		page, err := client(t, Options{}).Values(t.Context(), e, "", time.Now())
		if domain.CodeOf(err) != domain.CodeInvalid || !strings.Contains(err.Error(), tt.want) || len(page.Values) != 0 {
			t.Errorf("%.80s: %v, not %q", tt.page, err, tt.want)
		}
	}
}

func TestValuesFail(t *testing.T) {
	values := func(e Endpoint, cursor string) error {
		_, err := client(t, Options{Timeout: 5 * time.Second}).Values(t.Context(), e, cursor, time.Now())
		return err
	}
	wantError := func(of string, err error, code domain.Code, want string) {
		t.Helper()
		if domain.CodeOf(err) != code || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %s with %q", of, err, code, want)
		}
	}
	for _, status := range []int{204, 302, 404, 500} {
		e := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/"); w.WriteHeader(status) })
		wantError("a status", values(e, ""), domain.CodeUnavailable, fmt.Sprintf("answered %d to GET", status))
	}
	wantError("cut in the body", values(broken(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"posts\":[]}"), ""), domain.CodeUnavailable, "no answer to GET")
	e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"posts":[]}`+strings.Repeat(" ", pageBytesMax))
	})
	wantError("huge", values(e, ""), domain.CodeInvalid, "fewer posts to a page")
	e = serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"posts":[],"next_cursor":"c"}`) })
	wantError("a circle", values(e, "c"), domain.CodeInvalid, "would never end")
	wantError("a URL", values(Endpoint{URL: "http://core.example/"}, ""), domain.CodeInvalid, "in clear")

	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	e = serve(t, func(http.ResponseWriter, *http.Request) { cancel(); <-release })
	if _, err := client(t, Options{}).Values(ctx, e, "", time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("cut short by the caller: %v", err)
	}
}

// Whatever comes, a page is within its bounds, and the same as encoding/json reads.
func FuzzPage(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `{"posts":[]}`, `{"posts":[null]}`, `{"posts":[{"post":"p","impressions":1,"revision":2}],"next_cursor":"c"}`,
		`{"posts":[{"post":"p","impressions":-1}]}`, `{"posts":[{"post":"p","impressions":1e3}]}`, `{"posts":[{"post":"\ud800","impressions":1}]}`,
		`{"\u0070osts":[{"post":"a","impressions":1},{"post":"a","impressions":1}]}`, `{"posts":[],"next_cursor":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		page, err := Endpoint{Secrets: []string{newSecret}}.decodePage(raw)
		if err != nil {
			if domain.CodeOf(err) != domain.CodeInvalid || len(err.Error()) > 600 {
				t.Errorf("error %v", err)
			}
			return
		}
		var plain struct {
			Posts []struct {
				Post                  string
				Impressions, Revision int64
			}
			Next string `json:"next_cursor"`
		}
		if err := json.Unmarshal(raw, &plain); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if len(plain.Posts) != len(page.Values) || plain.Next != page.Next || len(page.Next) > cursorBytesMax {
			t.Fatalf("%+v, encoding/json reads %+v", page, plain)
		}
		met := map[domain.PostID]bool{}
		for i, v := range page.Values {
			p := plain.Posts[i]
			if string(v.Post) != p.Post || v.Impressions != p.Impressions || v.Revision != p.Revision {
				t.Errorf("%+v, encoding/json reads %+v", v, p)
			}
			if domain.CheckID("post", p.Post) != nil || met[v.Post] || v.Impressions < 0 || v.Revision < 0 {
				t.Errorf("accepted %+v", v)
			}
			met[v.Post] = true
		}
	})
}
