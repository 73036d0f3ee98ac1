package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmm/client"
	"vmm/machine"
	"vmm/task"
	"vmm/test/allow"
)

// TestPolicyAfterPanic: the policy treats a panic like any other failure, whether on
// Run's goroutine or on the machine's own, and no detail of it is lost.
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

// TestFail: a bug in the code around the machines ends the guest for good, in order,
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

// TestGuarded: a bug in a handler fails only its request, unless the request changes
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

// TestBugOnClose: a bug that appears when the machine is closed is the guest's end.
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

// TestClientsBounded: clients that hold all connections make others wait. They do not
// make the process open more files.
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

// TestClientsDescriptors: the most clients allowed, each with as many descriptors open as
// one can have, leave some reserved descriptors for other uses.
func TestClientsDescriptors(t *testing.T) {
	f := newFixture(t, Options{})
	m := f.run(t)
	if _, err := m.config.ConsoleOut.Write(make([]byte, 2*LogSize)); err != nil { // more than a socket takes
		t.Fatal(err)
	}
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	for range maxClients {
		c, err := net.Dial("unix", f.claim.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(allow.Time(20 * time.Second)))
		if _, err := io.WriteString(c, "GET /v1/guest/logs HTTP/1.1\r\nHost: guest\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "200") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	n := descriptors() - before - maxClients // the clients' ends, in this process
	if n < 2*maxClients || n > machine.Reserved*3/4 {
		t.Errorf("%d clients have %d descriptors; %d are reserved for all", maxClients, n, machine.Reserved)
	}
}

// TestLogStorm: a guest that resets itself repeatedly does not fill the log.
func TestLogStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the lives take no time here
		var log bytes.Buffer
		lives := 0
		g, err := New(machine.Config{Name: "web", Log: slog.New(slog.NewTextHandler(&log, nil))}, Options{Policy: Policy{Reboot: true}, boot: func(c machine.Config) (vm, error) {
			m := newFakeVM(c)
			c.Log.Info("of the machine")
			end := machine.End{Reason: machine.Reset}
			if lives++; lives == 1000 {
				end.Reason = machine.PowerOff
			}
			m.ends <- end
			return m, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if e := g.Run(t.Context(), nil); e.Reason != machine.PowerOff {
			t.Errorf("%+v", e)
		}
		if lines := strings.Count(log.String(), "\n"); lines < 2 || lines > 100 {
			t.Errorf("%d lines", lines)
		}
	})
}
