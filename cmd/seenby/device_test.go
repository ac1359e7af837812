package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dop251/goja"
	"github.com/evanw/esbuild/pkg/api"
	"github.com/google/uuid"
)

// device runs TypeScript as a browser or a server would, as far as docs/integrate.md needs one. Its clock stands
// still but for setTimeout, which takes no time: so waiting is tested without waiting.
type device struct {
	t       testing.TB
	js      *goja.Runtime
	send    func(*http.Request) (answer, error)
	session string // an app's cookie: who is signed in
	now     time.Time
	timers  []timer
	logged  []string
}

type timer struct {
	at     time.Time
	resume goja.Callable
}

// prelude is made of what Go gives: request and log.
const prelude = `
const fetch = async (url, { method = "GET", headers = {}, body = "", signal = 0 } = {}) => {
	const r = request(url, method, headers, body, signal)
	return { status: r.status, headers: { get: (name) => r.header(name) }, text: async () => r.body, json: async () => JSON.parse(r.body) }
}
const AbortSignal = { timeout: (ms) => ms }
const console = { warn: (...what) => log(JSON.stringify(what)) }`

// newDevice loads a script, whose exports are then the global variable app.
func newDevice(t testing.TB, script string, globals map[string]any) *device {
	t.Helper()
	compiled := api.Transform(script, api.TransformOptions{Loader: api.LoaderTS, Format: api.FormatIIFE, GlobalName: "app", Target: api.ES2017})
	if len(compiled.Errors)+len(compiled.Warnings) > 0 {
		t.Fatalf("esbuild: %+v %+v\n%s", compiled.Errors, compiled.Warnings, script)
	}
	d := &device{t: t, js: goja.New(), now: time.Now(), send: send}
	d.js.SetTimeSource(func() time.Time { return d.now })
	d.js.SetRandSource(func() float64 { return 0.5 })
	d.set("request", d.request)
	d.set("log", func(line string) { d.logged = append(d.logged, line) })
	d.set("crypto", map[string]any{"randomUUID": uuid.NewString})
	d.set("setTimeout", func(resume goja.Callable, ms float64) {
		d.timers = append(d.timers, timer{d.now.Add(time.Duration(ms * float64(time.Millisecond))), resume})
	})
	for name, value := range globals {
		d.set(name, value)
	}
	d.eval(prelude)
	d.eval(string(compiled.Code))
	return d
}

func (d *device) set(name string, value any) {
	d.t.Helper()
	if err := d.js.Set(name, value); err != nil {
		d.t.Fatal(err)
	}
}

// eval runs a script and, before it returns, all that waits for nothing but promises.
func (d *device) eval(script string) goja.Value {
	d.t.Helper()
	v, err := d.js.RunString(script)
	if err != nil {
		d.t.Fatalf("%s\n%v", script, err)
	}
	return v
}

// step lets the clock go on to the next timer, and gives how long that took.
func (d *device) step() time.Duration {
	d.t.Helper()
	if len(d.timers) == 0 {
		d.t.Fatal("nothing waits")
	}
	next := slices.MinFunc(d.timers, func(a, b timer) int { return a.at.Compare(b.at) })
	i := slices.IndexFunc(d.timers, func(a timer) bool { return a.at.Equal(next.at) })
	d.timers = slices.Delete(d.timers, i, i+1)
	waited := next.at.Sub(d.now)
	d.now = next.at
	if _, err := next.resume(goja.Undefined()); err != nil {
		d.t.Fatal(err)
	}
	return waited
}

// request is an HTTP request as fetch makes it; an error is thrown.
func (d *device) request(url, method string, headers map[string]string, body string, timeoutMS int64) (map[string]any, error) {
	if timeoutMS <= 0 && d.session != "" {
		d.t.Error("an app asks without a limit of time")
	}
	req, err := http.NewRequestWithContext(d.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	if d.session != "" {
		req.AddCookie(&http.Cookie{Name: "session", Value: d.session})
	}
	a, err := d.send(req)
	if err != nil {
		return nil, err
	}
	// As fetch has it: null where there is no such header.
	header := func(name string) any {
		if v := a.header.Get(name); v != "" {
			return v
		}
		return nil
	}
	return map[string]any{"status": a.status, "body": string(a.body), "header": header}, nil
}

// storage is a localStorage, which outlives the device's script.
type storage struct {
	js     *goja.Runtime
	keys   []string // in the order in which they came
	values map[string]string
}

// restore gives the device a storage that may have been another's.
func (d *device) restore(s *storage) {
	s.js = d.js
	d.set("localStorage", d.js.NewDynamicObject(s))
}

// Get has the methods, and the items for Object.keys.
func (s *storage) Get(key string) goja.Value {
	switch key {
	case "getItem":
		return s.js.ToValue(func(key string) any {
			if v, ok := s.values[key]; ok {
				return v
			}
			return nil
		})
	case "setItem":
		return s.js.ToValue(func(key, value string) { s.Set(key, s.js.ToValue(value)) })
	case "removeItem":
		return s.js.ToValue(func(key string) { s.Delete(key) })
	}
	return s.js.ToValue(s.values[key])
}

func (s *storage) Set(key string, v goja.Value) bool {
	if !s.Has(key) {
		s.keys = append(s.keys, key)
	}
	s.values[key] = v.String()
	return true
}

func (s *storage) Has(key string) bool { return slices.Contains(s.keys, key) }

func (s *storage) Delete(key string) bool {
	delete(s.values, key)
	s.keys = slices.DeleteFunc(s.keys, func(k string) bool { return k == key })
	return true
}

func (s *storage) Keys() []string { return slices.Clone(s.keys) }
