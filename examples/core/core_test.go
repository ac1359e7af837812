package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var (
	secretA = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32))
	secretB = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))
	secretC = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{3}, 32))
)

// system is a core system with its file, which can be stopped and started again.
type system struct {
	t      *testing.T
	data   string
	server *httptest.Server
	store  *store
}

func start(t *testing.T, data string) *system {
	t.Helper()
	verifiers, err := newVerifiers(secretA + ", " + secretB)
	if err != nil {
		t.Fatal(err)
	}
	st, warning, err := openStore(data)
	if err != nil || warning != "" {
		t.Fatal(warning, err)
	}
	c := &core{verifiers: verifiers, store: st, now: time.Now, log: log.New(t.Output(), "", 0)}
	s := &system{t: t, data: data, server: httptest.NewServer(c.handler()), store: st}
	t.Cleanup(s.stop)
	return s
}

func (s *system) stop() {
	s.server.Close()
	s.store.close()
}

func (s *system) restart() *system {
	s.t.Helper()
	s.stop()
	return start(s.t, s.data)
}

type call struct {
	method, path, id, body string
	secret                 string
	at                     time.Time
	tamper                 func(http.Header)
}

// do sends a call that is signed, and gives its status and answer.
func (s *system) do(c call) (int, string) {
	s.t.Helper()
	if c.secret == "" {
		c.secret = secretA
	}
	if c.at.IsZero() {
		c.at = time.Now()
	}
	signer, err := standardwebhooks.NewWebhook(c.secret)
	if err != nil {
		s.t.Fatal(err)
	}
	signature, err := signer.Sign(c.id, c.at, []byte(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), c.method, s.server.URL+c.path, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set(standardwebhooks.HeaderWebhookID, c.id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(c.at.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	if c.tamper != nil {
		c.tamper(req.Header)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// tell posts a body that has to be acknowledged.
func (s *system) tell(id, body string) {
	s.t.Helper()
	if status, answer := s.do(call{method: "POST", path: "/seenby", id: id, body: body}); status != 204 {
		s.t.Fatalf("%s: %d %s", body, status, answer)
	}
}

func countsBody(post string, impressions, viewers, revision int64) string {
	return fmt.Sprintf(`{"type":"impressions.changed","timestamp":"2026-11-23T12:00:00Z","data":{"tenant":"shop","posts":[`+
		`{"post":%q,"impressions":%d,"unique_viewers":%d,"revision":%d,"as_of":"2026-11-23T11:59:59Z"}]}}`, post, impressions, viewers, revision)
}

func milestoneBody(post string, threshold int64) string {
	return fmt.Sprintf(`{"type":"impressions.milestone","timestamp":"2026-11-23T12:00:00Z","data":{"tenant":"shop","post":%q,`+
		`"milestone":%d,"impressions":%d,"revision":7}}`, post, threshold, threshold+3)
}

func (s *system) post(id string) (p struct {
	post
	Milestones []milestone
}) {
	s.t.Helper()
	status, answer := s.do(call{method: "GET", path: "/posts/" + url.PathEscape(id)})
	if err := json.Unmarshal([]byte(answer), &p); status != 200 || err != nil {
		s.t.Fatalf("%d %s", status, answer)
	}
	return p
}

func (s *system) wantPost(id string, impressions, viewers, revision int64) {
	s.t.Helper()
	if p := s.post(id); p.Post != id || p.Impressions != impressions || p.UniqueViewers != viewers || p.Revision != revision {
		s.t.Errorf("%+v, not %d, %d, revision %d", p.post, impressions, viewers, revision)
	}
}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "core.jsonl") }

func TestTheHighestRevisionIsKept(t *testing.T) {
	s := start(t, file(t))
	s.tell("c1", countsBody("p/1 \u00e9", 100, 40, 5))
	s.wantPost("p/1 \u00e9", 100, 40, 5)
	if p := s.post("p/1 \u00e9"); !p.AsOf.Equal(time.Date(2026, 11, 23, 11, 59, 59, 0, time.UTC)) || p.ChangedAt.IsZero() {
		t.Errorf("%+v", p)
	}
	before := size(t, s.data)
	s.tell("c0", countsBody("p/1 \u00e9", 90, 30, 4)) // overtaken on its way
	s.tell("c1", countsBody("p/1 \u00e9", 100, 40, 5))
	s.tell("c2", countsBody("p/1 \u00e9", 1, 1, 5)) // the same revision, whatever it says
	s.wantPost("p/1 \u00e9", 100, 40, 5)
	if size(t, s.data) != before {
		t.Error("what is ignored was written")
	}
	s.tell("c3", `{"type":"impressions.changed","data":{"posts":[{"post":"b","impressions":9,"unique_viewers":2,"revision":3,"new_field":{}},`+
		`{"post":"b","impressions":5,"unique_viewers":1,"revision":2},{"post":"p/1 \u00e9","impressions":80,"unique_viewers":41,"revision":6}]}}`)
	s.wantPost("b", 9, 2, 3)
	s.wantPost("p/1 \u00e9", 80, 41, 6) // a count may fall
	s = s.restart()
	s.wantPost("b", 9, 2, 3)
	s.wantPost("p/1 \u00e9", 80, 41, 6)
	s.tell("c2", countsBody("p/1 \u00e9", 100, 40, 5))
	s.wantPost("p/1 \u00e9", 80, 41, 6)
	if status, _ := s.do(call{method: "GET", path: "/posts/none"}); status != 404 {
		t.Errorf("a post that is not there: %d", status)
	}
}

func size(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestAMilestoneIsTakenOnce(t *testing.T) {
	s := start(t, file(t))
	s.tell("m1", milestoneBody("p", 1000))
	before := size(t, s.data)
	s.tell("m1", milestoneBody("p", 1000))
	if size(t, s.data) != before {
		t.Error("what is ignored was written")
	}
	s.tell("m2", milestoneBody("p", 10000))
	s.tell("m3", `{"type":"impressions.milestone","data":{"id":"m4","post":"q","milestone":1}}`)
	s = s.restart()
	s.tell("m1", milestoneBody("p", 1000))
	s.tell("m4", milestoneBody("q", 2)) // its id is the header's
	if p := s.post("p"); len(p.Milestones) != 2 || p.Milestones[0].Milestone != 1000 || p.Milestones[0].Impressions != 1003 || p.Milestones[1].Milestone != 10000 {
		t.Errorf("%+v", p)
	}
	if p := s.post("q"); len(p.Milestones) != 2 {
		t.Errorf("%+v", p)
	}
}

func TestWhoSignsIsChecked(t *testing.T) {
	s := start(t, file(t))
	body := countsBody("p", 1, 1, 1)
	for _, tt := range []struct {
		name string
		call call
		want string // "": it is taken
	}{
		{"the other secret", call{secret: secretB}, ""},
		{"another's secret", call{secret: secretC}, "no matching signature"},
		{"old", call{at: time.Now().Add(-6 * time.Minute)}, "too old"},
		{"rather old", call{at: time.Now().Add(-4 * time.Minute)}, ""},
		{"new", call{at: time.Now().Add(6 * time.Minute)}, "too new"},
		{"rather new", call{at: time.Now().Add(4 * time.Minute)}, ""},
		{"another id", call{tamper: func(h http.Header) { h.Set("webhook-id", "other") }}, "no matching signature"},
		{"no signature", call{tamper: func(h http.Header) { h.Del("webhook-signature") }}, "missing required headers"},
		{"no time", call{tamper: func(h http.Header) { h.Set("webhook-timestamp", "now") }}, "timestamp header"},
	} {
		for _, method := range []string{"POST", "GET"} {
			c := tt.call
			c.method, c.path, c.id, c.body = method, "/seenby", "c1", body
			status, answer := s.do(c)
			if ok := status/100 == 2; ok != (tt.want == "") || !ok && (status != 401 || !strings.Contains(answer, tt.want)) {
				t.Errorf("%s: %s: %d %s, not %q", tt.name, method, status, answer, tt.want)
			}
		}
	}
}

func TestBadCalls(t *testing.T) {
	s := start(t, file(t))
	for body, want := range map[string]string{
		``:                               "body is malformed",
		`<p>`:                            "body is malformed",
		`[]`:                             "body is malformed",
		`{"data":{}}`:                    "type is required",
		`{"type":7}`:                     "type",
		`{"type":"impressions.changed"}`: "data is malformed",
		`{"type":"impressions.changed","data":{}}`:                                                                        "data.posts is required",
		`{"type":"impressions.changed","data":{"posts":[{"impressions":1,"unique_viewers":1,"revision":1}]}}`:             "data.posts[0].post is required",
		`{"type":"impressions.changed","data":{"posts":[{"post":"p","unique_viewers":1,"revision":1}]}}`:                  "data.posts[0].impressions",
		`{"type":"impressions.changed","data":{"posts":[{"post":"p","impressions":"1","unique_viewers":1}]}}`:             "impressions",
		`{"type":"impressions.changed","data":{"posts":[{"post":"p","impressions":1,"unique_viewers":-1,"revision":1}]}}`: "data.posts[0].unique_viewers",
		`{"type":"impressions.changed","data":{"posts":[{"post":"p","impressions":1,"unique_viewers":1}]}}`:               "data.posts[0].revision",
		`{"type":"impressions.milestone","data":{"milestone":1}}`:                                                         "data.post is required",
		`{"type":"impressions.milestone","data":{"post":"p"}}`:                                                            "data.milestone",
		`{"type":"impressions.milestone","data":[]}`:                                                                      "data is malformed",
	} {
		if status, answer := s.do(call{method: "POST", path: "/seenby", id: "c", body: body}); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s, not %q", body, status, answer, want)
		}
	}
	s.tell("t", `{"type":"seenby.test","timestamp":"2026-11-23T12:00:00Z","data":{"tenant":"shop"}}`)
	s.tell("t", `{"type":"impressions.renamed","data":[7]}`)
	if size(t, s.data) != 0 {
		t.Error("something of these was kept")
	}
	if status, _ := s.do(call{method: "POST", path: "/seenby", body: strings.Repeat(" ", bodyBytesMax+1)}); status != 413 {
		t.Errorf("too large: %d", status)
	}
	if status, _ := s.do(call{method: "DELETE", path: "/seenby"}); status != 405 {
		t.Errorf("another method: %d", status)
	}
	if status, answer := s.do(call{method: "GET", path: "/healthz"}); status != 200 || answer != "ok\n" {
		t.Errorf("health: %d %s", status, answer)
	}
}

func TestValuesComeInPages(t *testing.T) {
	s := start(t, file(t))
	if status, answer := s.do(call{method: "GET", path: "/seenby", id: "v"}); status != 200 || answer != `{"posts":[]}`+"\n" {
		t.Fatalf("empty: %d %s", status, answer)
	}
	var own []post
	for i := range 2*pagePostsMax + 1 {
		own = append(own, post{Post: fmt.Sprintf("p %04d&", i), Impressions: int64(i)})
	}
	if err := s.store.take(entry{Posts: own}); err != nil {
		t.Fatal(err)
	}
	s.tell("c", countsBody(own[0].Post, 77, 1, 3))
	s.tell("c", countsBody("p 0500&x", 1, 1, 1))
	next, sizes, met := "", []int{}, map[string]int64{}
	for {
		status, answer := s.do(call{method: "GET", path: "/seenby?cursor=" + url.QueryEscape(next), id: "v"})
		var page struct {
			Posts []struct {
				Post                  string
				Impressions, Revision int64
			}
			Next string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(answer), &page); status != 200 || err != nil {
			t.Fatalf("%d %s", status, answer)
		}
		for _, p := range page.Posts {
			if _, again := met[p.Post]; again || (p.Post == own[0].Post) != (p.Revision == 3) {
				t.Errorf("%+v, again: %v", p, again)
			}
			met[p.Post] = p.Impressions
		}
		sizes = append(sizes, len(page.Posts))
		if next = page.Next; next == "" || len(sizes) > 5 {
			break
		}
	}
	if fmt.Sprint(sizes) != "[500 500 2]" || met[own[0].Post] != 77 || met[own[700].Post] != 700 {
		t.Errorf("pages of %v", sizes)
	}
}

func TestThePageEscapes(t *testing.T) {
	s := start(t, file(t))
	s.tell("c1", countsBody("<script>alert(1)</script>", 120001, 346, 12))
	s.tell("m1", milestoneBody("<b>&", 1000))
	s.tell("m2", milestoneBody("last", 50))
	if err := s.store.take(entry{At: time.Now(), Posts: []post{{Post: "own", Impressions: 5}}}); err != nil {
		t.Fatal(err)
	}
	status, page := s.do(call{method: "GET", path: "/"})
	for _, want := range []string{"&lt;script&gt;alert(1)&lt;/script&gt;", ">120001<", ">346<", ">12<", "&lt;b&gt;&amp;", ">1000<", ">1003<", "own count"} {
		if !strings.Contains(page, want) {
			t.Errorf("%s is not on the page", want)
		}
	}
	if strings.Index(page, ">last<") > strings.Index(page, "&lt;b&gt;") {
		t.Error("the latest milestone is not the first")
	}
	if status != 200 || strings.Contains(page, "<script>alert") || strings.Contains(page, "<b>") {
		t.Errorf("%d, or a post's id is markup:\n%s", status, page)
	}
	if outside := regexp.MustCompile(`(src|href)=|https?://`).FindString(page); outside != "" {
		t.Errorf("the page needs more than itself: %s", outside)
	}
	var many []post
	for i := range shownMax + 1 {
		many = append(many, post{Post: "many" + strconv.Itoa(i), Revision: 1})
	}
	if err := s.store.take(entry{At: time.Now(), Posts: many}); err != nil {
		t.Fatal(err)
	}
	if _, page = s.do(call{method: "GET", path: "/"}); !strings.Contains(page, "the 200 that changed last, of 203") || strings.Contains(page, "own count") {
		t.Error("the page is not bounded to what changed last")
	}
	if status, _ := s.do(call{method: "GET", path: "/other"}); status != 404 {
		t.Errorf("another page: %d", status)
	}
}

func TestATornLineIsDropped(t *testing.T) {
	s := start(t, file(t))
	s.tell("c1", countsBody("p", 1, 1, 1))
	s.tell("c2", countsBody("p", 2, 2, 2))
	s.stop()
	whole, err := os.ReadFile(s.data)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first + 1; cut < len(whole); cut++ {
		if err := os.WriteFile(s.data, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		st, warning, err := openStore(s.data)
		if err != nil || !strings.Contains(warning, "torn") {
			t.Fatalf("cut at %d: %q, %v", cut, warning, err)
		}
		st.close()
		if size(t, s.data) != int64(first) {
			t.Fatalf("cut at %d: %d bytes are left, not %d", cut, size(t, s.data), first)
		}
	}
	s = start(t, s.data)
	s.wantPost("p", 1, 1, 1)
	s.tell("c2", countsBody("p", 2, 2, 2)) // it was not acknowledged, so it comes again
	s = s.restart()
	s.wantPost("p", 2, 2, 2)
	s.stop()
	if err := os.WriteFile(s.data, append([]byte("{\"at\n"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openStore(s.data); err == nil || !strings.Contains(err.Error(), "line 1 is damaged") {
		t.Errorf("damage in the middle: %v", err)
	}
}

func TestNothingIsAcknowledgedThatIsNotKept(t *testing.T) {
	s := start(t, file(t))
	s.tell("c1", countsBody("p", 1, 1, 1))
	file := s.store.file
	defer file.Close()
	var err error
	if s.store.file, err = os.Open(s.data); err != nil { // it cannot be written, as when a disk fails
		t.Fatal(err)
	}
	for range 2 {
		if status, answer := s.do(call{method: "POST", path: "/seenby", id: "c2", body: countsBody("p", 2, 2, 2)}); status != 503 {
			t.Errorf("%d %s", status, answer)
		}
		s.store.file = file // it works again, but may hold half a line
	}
	s.tell("c1", countsBody("p", 1, 1, 1)) // this it has
	s.wantPost("p", 1, 1, 1)
	s = s.restart()
	s.wantPost("p", 1, 1, 1)
}

// output is what a run says; said waits for a part of it.
type output struct{ lines chan string }

func (o output) Write(b []byte) (int, error) {
	o.lines <- string(b)
	return len(b), nil
}

func (o output) said(t *testing.T, pattern string) string {
	t.Helper()
	for {
		select {
		case line := <-o.lines:
			if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
				return m[1]
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing like %s was said", pattern)
		}
	}
}

func TestRun(t *testing.T) {
	data := file(t)
	for round, want := range []string{`"impressions":5,"unique_viewers":0,"revision":0`, `"impressions":9,"unique_viewers":3,"revision":1`} {
		out := output{make(chan string, 100)}
		done := make(chan error, 1)
		go func() {
			done <- run(t.Context(), []string{"--addr", "127.0.0.1:0", "--data", data, "--preset", "p=5", "--preset", "a=b=7"}, secretA, out)
		}()
		s := &system{t: t, data: data, server: &httptest.Server{URL: out.said(t, `listening on (http://\S+)`)}}
		if _, answer := s.do(call{method: "GET", path: "/posts/p"}); !strings.Contains(answer, want) {
			t.Errorf("round %d: %s, not %s", round, answer, want)
		}
		if _, answer := s.do(call{method: "GET", path: "/posts/a=b"}); !strings.Contains(answer, `"impressions":7`) {
			t.Errorf("round %d: %s", round, answer)
		}
		s.tell("c1", countsBody("p", 9, 3, 1)) // a preset does not come back after that
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it does not stop")
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"set CORE_SECRETS or --secrets": {},
		"whsec_":                        {"--secrets", "secret"},
		"several separated":             {"--secrets", secretA + ",whsec_"},
		"must be post=count":            {"--secrets", secretA, "--preset", "p"},
		"a whole number from 0":         {"--secrets", secretA, "--preset", "p=-1"},
		"unexpected argument":           {"--secrets", secretA, "now"},
		"no such file":                  {"--secrets", secretA, "--data", filepath.Join(t.TempDir(), "none", "core.jsonl")},
	} {
		if err := run(context.Background(), args, "", io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q", args, err, want)
		}
	}
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, "", &help); err != nil || !strings.Contains(help.String(), "-preset post=count") {
		t.Errorf("help: %v\n%s", err, &help)
	}
}
