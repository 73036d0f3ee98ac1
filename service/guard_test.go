package service

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"vmm/client"
	"vmm/machine"
	"vmm/task"
	"vmm/test/allow"
)

// TestPolicyAfterPanic: a panic is a failure like others to the policy, on the
// goroutine of Run as on the machine's own, and nothing of it is lost.
func TestPolicyAfterPanic(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Failure: true, Most: 1}})
	f.run(t).bugs <- "first"
	f.life(t).bugs <- "second"
	e := f.end(t)
	var bug *task.PanicError
	if !errors.As(e.Err, &bug) || bug.Value != "second" || !strings.Contains(string(bug.Stack), "fakeVM") {
		t.Errorf("%v", e.Err)
	}
	if log := f.log.String(); !strings.Contains(log, "panic=first") || !strings.Contains(log, "fakeVM") {
		t.Errorf("the log: %s", log)
	}
}

// TestFail: a bug of what is around the machines ends the guest for good, in order,
// whatever the policy.
func TestFail(t *testing.T) {
	f := newFixture(t, Options{Keep: true, Policy: Policy{Always: true}})
	m := f.run(t)
	bug := &task.PanicError{Value: "a bug"}
	if !f.Fail(bug) {
		t.Error("it has ended before")
	}
	if e := f.end(t); e.Err != bug {
		t.Errorf("%+v", e)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := f.recorded(t).End; !m.closed || end == nil || !strings.Contains(*end.Error, "a bug") {
		t.Errorf("closed %v, recorded %+v", m.closed, end)
	}
	if f.Fail(bug) {
		t.Error("it is to end again")
	}
}

// TestGuarded: a bug in an answer is one of the request's only, unless that changes
// the guest.
func TestGuarded(t *testing.T) {
	var f *fixture
	f = newFixture(t, Options{Policy: Policy{Always: true}, Owner: func(p *task.PanicError) { f.Fail(p) }})
	m := f.run(t)
	m.bug.Store(true)
	ask := func(method, path string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
		defer cancel()
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", f.claim.Socket())
		}
		r, err := http.NewRequestWithContext(ctx, method, "http://guest/v1/guest"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(b)
	}
	if status, text := ask(http.MethodGet, "/stats"); status != http.StatusInternalServerError || !strings.Contains(text, "internal error") {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := ask(http.MethodGet, ""); status != http.StatusOK {
		t.Errorf("another request: %d", status)
	}
	if log := f.log.String(); !strings.Contains(log, "a bug of Stats") || !strings.Contains(log, "GET /v1/guest/stats") {
		t.Errorf("the log: %s", log)
	}
	if status, _ := ask(http.MethodPost, "/pause"); status != http.StatusInternalServerError {
		t.Errorf("%d", status)
	}
	var bug *task.PanicError
	if e := f.end(t); !errors.As(e.Err, &bug) || bug.Value != "a bug of Pause" {
		t.Errorf("%+v", e)
	}
}

// TestBugOnClose: a bug that shows when the machine is closed is how it ended.
func TestBugOnClose(t *testing.T) {
	bug := &task.PanicError{Value: "late"}
	var f *fixture
	f = newFixture(t, Options{boot: func(c machine.Config) (vm, error) {
		m := newFakeVM(c)
		f.vms <- m
		return late{m, bug}, nil
	}})
	f.run(t).ends <- machine.End{Reason: machine.PowerOff}
	if e := f.end(t); e.Err != bug {
		t.Errorf("%+v", e)
	}
}

type late struct {
	*fakeVM
	bug error
}

func (l late) Close() error { return errors.Join(l.bug, l.fakeVM.Close()) }

// TestClientsBounded: those who keep all connections make others wait, and not the
// process open more files.
func TestClientsBounded(t *testing.T) {
	f := newFixture(t, Options{})
	f.run(t)
	var all []net.Conn
	for range maxClients {
		c, err := net.Dial("unix", f.claim.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, c)
	}
	g, err := client.Open(f.roster, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := g.About(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: %v", err)
	}
	all[7].Close()
	ctx, cancel = context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if _, err := g.About(ctx); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
}

// TestLogStorm: a guest that resets itself again and again does not fill the log.
func TestLogStorm(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Reboot: true}})
	m := f.run(t)
	for range 100 {
		m.config.Log.Info("of the machine")
		m.ends <- machine.End{Reason: machine.Reset}
		m = f.life(t)
	}
	m.ends <- machine.End{Reason: machine.PowerOff}
	f.end(t)
	if lines := strings.Count(f.log.String(), "\n"); lines < 2 || lines > 100 {
		t.Errorf("%d lines", lines)
	}
}
