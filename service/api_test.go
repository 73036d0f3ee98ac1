package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"vmm/client"
	"vmm/machine"
	"vmm/test/allow"
)

// truth checks requests and answers against the description.
type truth struct {
	t      *testing.T
	router routers.Router
	http   *http.Client
	asked  map[string]bool // operations that succeeded as described
}

func newTruth(t *testing.T, socket string) (*truth, *openapi3.T) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &truth{t, router, &http.Client{Transport: &http.Transport{DialContext: dial}}, map[string]bool{}}, doc
}

// ask sends a request and checks the status and form of the answer.
func (u *truth) ask(method, path, body string, status int) string {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), allow.Time(20*time.Second))
	defer cancel()
	request := func() *http.Request {
		r, err := http.NewRequestWithContext(ctx, method, "http://localhost/v1"+path, strings.NewReader(body))
		if err != nil {
			u.t.Fatal(err)
		}
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		return r
	}
	route, params, err := u.router.FindRoute(request())
	if err != nil {
		u.t.Fatalf("%s %s: %v", method, path, err)
	}
	in := &openapi3filter.RequestValidationInput{Request: request(), PathParams: params, Route: route}
	if err := openapi3filter.ValidateRequest(ctx, in); (err == nil) != (status != http.StatusBadRequest) {
		u.t.Errorf("%s %s %s: the description says of the request: %v", method, path, body, err)
	}
	answer, err := u.http.Do(request())
	if err != nil {
		u.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	if answer.StatusCode != status {
		u.t.Errorf("%s %s %s: %d %s, want %d", method, path, body, answer.StatusCode, b, status)
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: answer.StatusCode, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(b))}
	if err := openapi3filter.ValidateResponse(ctx, out); err != nil {
		u.t.Errorf("%s %s: %v", method, path, err)
	}
	if status < 300 {
		u.asked[route.Operation.OperationID] = true
	}
	return string(b)
}

// TestDescription: openapi.yaml is true of the requests and answers of every operation.
func TestDescription(t *testing.T) {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.FileBodyDecoder)
	f := newFixture(t, Options{StopTimeout: time.Hour})
	u, doc := newTruth(t, f.claim.Socket())
	u.ask("GET", "/guest", "", 200)
	u.ask("POST", "/guest/pause", "", 409) // not running yet
	u.ask("GET", "/guest/stats", "", 409)
	m := f.run(t)
	io.WriteString(m.config.ConsoleOut, "hello\n")
	for _, r := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/guest", "", 200},
		{"POST", "/guest/pause", "", 204}, {"POST", "/guest/pause", "", 204}, {"POST", "/guest/resume", "", 204},
		{"GET", "/guest/stats", "", 200}, {"POST", "/guest/break", "", 204},
		{"PUT", "/guest/balloon", `{"bytes":4096}`, 204},
		{"PUT", "/guest/balloon", `{"bytes":-1}`, 400}, {"PUT", "/guest/balloon", `{}`, 400}, {"PUT", "/guest/balloon", `{"bytes":"1"}`, 400},
		{"POST", "/guest/stop", `{"timeoutMs":-1}`, 400},
		{"GET", "/guest/logs", "", 200}, {"GET", "/guest/logs?follow=false", "", 200}, {"GET", "/guest/logs?follow=perhaps", "", 400},
		{"GET", "/guest/logs?tail=2", "", 200}, {"GET", "/guest/logs?tail=-1", "", 400}, {"GET", "/guest/logs?tail=", "", 400},
	} {
		u.ask(r.method, r.path, r.body, r.status)
	}
	u.ask("POST", "/guest/stop", `{}`, 204)
	if got := u.ask("GET", "/guest/wait", "", 200); !strings.Contains(got, `"reason":"power off"`) {
		t.Error(got)
	}
	u.ask("POST", "/guest/kill", "", 409)
	f.end(t)
	u.asked["console"], u.asked["trace"], u.asked["kill"] = true, true, true // in TestStreams and TestClient
	for _, path := range doc.Paths.Map() {
		for _, o := range path.Operations() {
			if !u.asked[o.OperationID] {
				t.Errorf("operation %s is described and not tested", o.OperationID)
			}
		}
	}
}

// TestBadRequests: a request outside the description gets an error that says so.
func TestBadRequests(t *testing.T) {
	f := newFixture(t, Options{})
	f.run(t)
	u, _ := newTruth(t, f.claim.Socket())
	for _, r := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/", "", 404, "there is no GET /"}, {"DELETE", "/v1/guest", "", 404, "there is no"},
		{"PUT", "/v1/guest/balloon", "", 400, "body"}, {"PUT", "/v1/guest/balloon", "{", 400, "body"}, {"PUT", "/v1/guest/balloon", `{"bytes":1}{}`, 400, "more than one"},
		{"PUT", "/v1/guest/balloon", `{"bytes":1,"x":2}`, 400, "unknown field"}, {"PUT", "/v1/guest/balloon", `{"bytes":1e99}`, 400, "body"},
		{"PUT", "/v1/guest/balloon", `{"bytes":999999999999}`, 400, "larger than the guest"},
		{"PUT", "/v1/guest/balloon", `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, 400, "too large"},
		{"POST", "/v1/guest/stop", `{"timeoutMs":99999999999}`, 400, "timeoutMs"},
		{"GET", "/v1/guest/console", "", 400, "Upgrade"},
	} {
		request, err := http.NewRequest(r.method, "http://localhost"+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := u.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != r.status || !strings.Contains(string(b), `"error"`) || !strings.Contains(string(b), r.want) || bytes.Count(b, []byte("\n")) != 1 {
			t.Errorf("%s %s %.80s: %d %s", r.method, r.path, r.body, answer.StatusCode, b)
		}
	}
}

// TestStreams: two clients attach to the console. Both see what the guest prints, and
// either may type. A trace has lines. All streams end with the guest.
func TestStreams(t *testing.T) {
	f := newFixture(t, Options{Keep: true})
	m := f.run(t)
	g, err := client.Open(f.roster, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	open := func(f func(context.Context) (net.Conn, error)) *bufio.ReadWriter {
		c, err := f(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriterSize(c, 1))
	}
	one, two := open(g.Console), open(g.Console)
	io.WriteString(m.config.ConsoleOut, "prompt\n")
	for i, c := range []*bufio.ReadWriter{one, two} {
		if line, err := c.ReadString('\n'); line != "prompt\n" || err != nil {
			t.Errorf("%d: %q, %v", i, line, err)
		}
		io.WriteString(c, "typed")
		c.Flush()
		b := make([]byte, 5)
		if _, err := io.ReadFull(m.config.ConsoleIn, b); string(b) != "typed" || err != nil {
			t.Errorf("%d: the guest reads %q, %v", i, b, err)
		}
	}
	logs, err := g.Logs(ctx, true, -1)
	if err != nil {
		t.Fatal(err)
	}
	trace, err := g.Trace(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.exits <- machine.Exit{CPU: 1, Reason: "MMIO", Addr: 0x1000, Size: 4}
	if line, err := bufio.NewReader(trace).ReadString('\n'); !strings.Contains(line, `"Reason":"MMIO","Addr":4096,"Size":4`) || err != nil {
		t.Errorf("trace: %q, %v", line, err)
	}
	metrics, err := g.Metrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkMetrics(t, metrics)
	io.WriteString(m.config.ConsoleOut, "bye\n")
	m.ends <- machine.End{Reason: machine.PowerOff}
	f.end(t)
	go f.Guest.Close()
	for i, c := range []io.Reader{one, two, logs} {
		if b, err := io.ReadAll(c); !strings.HasSuffix(string(b), "bye\n") || err != nil {
			t.Errorf("%d: at the end: %q, %v", i, b, err)
		}
	}
	trace.Close()
	logs.Close()
}

// TestLastTyped: what a client typed before it left reaches a guest that is slow to
// read it. A guest that reads nothing does not keep the client's goroutine.
func TestLastTyped(t *testing.T) {
	f := newFixture(t, Options{})
	m := f.run(t)
	g, err := client.Open(f.roster, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, typed := range []string{"last words", strings.Repeat("x", 3*inboxSize)} {
		c, err := g.Console(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, typed); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if len(typed) > inboxSize {
			continue // the guest does not read it
		}
		io.WriteString(m.config.ConsoleOut, "the guest prints, which finds that the client has left")
		b := make([]byte, len(typed))
		if _, err := io.ReadFull(m.config.ConsoleIn, b); string(b) != typed || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	io.WriteString(m.config.ConsoleOut, "again")
	f.await(t, func() bool {
		f.out.mu.Lock()
		defer f.out.mu.Unlock()
		return len(f.out.watchers) == 0
	})
}

// checkMetrics checks the text: every sample belongs to an announced family.
func checkMetrics(t *testing.T, r io.ReadCloser) {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		"# TYPE vmm_guest_up gauge\nvmm_guest_up 1\n", `vmm_vcpu_exits_total{vcpu="0",reason="MMIO"} 4`, `vmm_vcpu_seconds_total{vcpu="0",mode="guest"} 1`,
		`vmm_device_total{device="disk0",counter="requests"} 3`, `vmm_device_total{device="disk0",counter="bytes_to_guest"} 100`,
		`vmm_device_request_seconds_bucket{device="disk0",request="read",le="2e-06"} 0`, `vmm_device_request_seconds_bucket{device="disk0",request="read",le="4e-06"} 1`,
		`vmm_device_request_seconds_bucket{device="disk0",request="read",le="+Inf"} 2`, `vmm_device_request_seconds_count{device="disk0",request="read"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	family := ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			family, _, _ = strings.Cut(name, " ")
		} else if !strings.HasPrefix(line, "#") && (family == "" || !strings.HasPrefix(line, family)) {
			t.Errorf("%q is not of family %q", line, family)
		}
	}
}

// TestClient: what a program does with a guest that it opens by name, to the end.
func TestClient(t *testing.T) {
	f := newFixture(t, Options{Keep: true})
	m := f.run(t)
	m.deaf = true
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	g, err := client.Open(f.roster, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if a, err := g.About(ctx); err != nil || a.Name != "web" {
		t.Errorf("%+v, %v", a, err)
	}
	if s, err := g.Stats(ctx); err != nil || s.MemoryBytes != 64<<20 || s.Devices[0].Counters["read_requests"] != 2 || (*s.Balloon.Guest)["free-memory"] != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := errors.Join(g.Pause(ctx), g.Resume(ctx), g.SetBalloon(ctx, 1<<20)); err != nil || m.balloon != 1<<20 {
		t.Errorf("%v, balloon of %d", err, m.balloon)
	}
	var refused *client.Error
	if err := g.SetBalloon(ctx, 1<<40); !errors.As(err, &refused) || refused.Status != 400 {
		t.Errorf("%v", err)
	}
	long := time.Hour
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if e, err := g.Wait(ctx); err != nil || e.Reason != "stopped" || e.Status != 5+10*15 {
			t.Errorf("%+v, %v", e, err)
		}
	})
	waiting.Go(func() {
		if err := g.Stop(ctx, &long); err != nil {
			t.Error(err)
		}
	})
	f.await(t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.presses > 0
	})
	waiting.Go(func() {
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	f.end(t)
	if err := f.Guest.Close(); err != nil {
		t.Error(err)
	}
	waiting.Wait()
	if err := g.Pause(ctx); !errors.Is(err, client.ErrEnded) {
		t.Errorf("%v", err)
	}
	all, err := client.List(f.roster)
	if err != nil || len(all) != 1 || all[0].End.Reason != "stopped" {
		t.Errorf("%+v, %v", all, err)
	}
}
