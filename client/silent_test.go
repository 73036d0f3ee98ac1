package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/api"
	"vmm/roster"
	"vmm/test/allow"
)

// quick are limits for tests.
var quick = limits{
	beat: 5 * time.Millisecond, silence: 20 * time.Millisecond, call: time.Minute,
	kill: 20 * time.Millisecond, leave: 50 * time.Millisecond, exit: time.Minute, stop: 20 * time.Millisecond,
}

// silentMain is a guest's process that answers no request: see TestSilent.
func silentMain(dir string) {
	r, err := roster.Create(dir)
	if err == nil {
		var c *roster.Claim
		if c, err = r.Claim("web", true); err == nil {
			defer runtime.KeepAlive(c)
			_, err = net.Listen("unix", c.Socket())
		}
	}
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("CLAIMED\n")
	bufio.NewReader(os.Stdin).ReadByte()
}

// silent runs silentMain in a process that is then stopped, or only does not answer.
func silent(t *testing.T, stopped bool) (g *Guest, ended <-chan error) {
	t.Helper()
	r := newRoster(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSilent$")
	child.Env = append(os.Environ(), "VMM_TEST_SILENT="+r.Dir())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "CLAIMED\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if stopped {
		if err := child.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if g, err = Open(r, "web"); err != nil {
		t.Fatal(err)
	}
	g.limits = quick
	end := make(chan error, 1)
	go func() { end <- child.Wait() }()
	return g, end
}

// TestSilent: every operation on a process that hangs or is stopped returns in time, and
// the process can be killed.
func TestSilent(t *testing.T) {
	if dir := os.Getenv("VMM_TEST_SILENT"); dir != "" {
		silentMain(dir)
		return
	}
	closing := func(c interface{ Close() error }, err error) error {
		if err == nil {
			c.Close()
		}
		return err
	}
	asks := map[string]func(g *Guest, ctx context.Context) error{
		"about": func(g *Guest, ctx context.Context) error { _, err := g.About(ctx); return err },
		"pause": (*Guest).Pause, "resume": (*Guest).Resume, "break": (*Guest).SendBreak,
		"stats":   func(g *Guest, ctx context.Context) error { _, err := g.Stats(ctx); return err },
		"balloon": func(g *Guest, ctx context.Context) error { return g.SetBalloon(ctx, 0) },
		"wait":    func(g *Guest, ctx context.Context) error { _, err := g.Wait(ctx); return err },
		"end":     func(g *Guest, ctx context.Context) error { _, err := g.End(ctx); return err },
		"logs":    func(g *Guest, ctx context.Context) error { return closing(g.Logs(ctx, true, -1)) },
		"trace":   func(g *Guest, ctx context.Context) error { return closing(g.Trace(ctx)) },
		"metrics": func(g *Guest, ctx context.Context) error { return closing(g.Metrics(ctx)) },
		"console": func(g *Guest, ctx context.Context) error { return closing(g.Console(ctx)) },
	}
	ends := map[string]func(g *Guest, ctx context.Context) error{
		"kill": (*Guest).Kill,
		"stop": func(g *Guest, ctx context.Context) error { return g.Stop(ctx, nil) },
		"stop in a time": func(g *Guest, ctx context.Context) error {
			timeout := time.Millisecond
			return g.Stop(ctx, &timeout)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			g, ended := silent(t, name != "stop")
			ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
			defer cancel()
			if name == "kill" {
				for name, ask := range asks {
					if err := ask(g, ctx); !errors.Is(err, ErrSilent) {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
			if err := end(g, ctx); err != nil {
				t.Error(err)
			}
			select {
			case <-ended:
			case <-ctx.Done():
				t.Fatal("its process lives")
			}
			if about, err := Describe(roster.Entry{Name: g.Name, Dir: g.Dir}); err != nil || about.End == nil || about.End.Reason != Killed {
				t.Errorf("%+v, %v", about, err)
			}
		})
	}
}

// TestLimit: an operation's own limit holds while the process is probed.
func TestLimit(t *testing.T) {
	g, _ := silent(t, true)
	g.limits.silence = time.Hour
	g.limits.call = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if err := g.Pause(ctx); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
	if err := g.Kill(ctx); err != nil {
		t.Error(err)
	}
}

// served returns a guest that a handler answers for, and the claim of its name.
func served(t *testing.T, r *roster.Roster, h http.HandlerFunc) (*Guest, *roster.Claim) {
	t.Helper()
	c := claim(t, r, "web", "")
	l, err := net.Listen("unix", c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	g, err := Open(r, "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	g.limits = quick
	g.limits.silence = time.Minute // it answers, however busy this process is
	return g, c
}

// TestBusy: an operation may take a long time while the process answers others.
func TestBusy(t *testing.T) {
	var beats atomic.Int32
	enough := make(chan struct{})
	g, _ := served(t, newRoster(t), func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // GET /v1/guest
			if beats.Add(1) == 3 {
				close(enough)
			}
			io.WriteString(w, "{}")
			return
		}
		select {
		case <-enough:
			w.WriteHeader(http.StatusNoContent)
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if err := g.Pause(ctx); err != nil {
		t.Error(err)
	}
}

// TestStopThenSilent: a process that hangs after it was asked to stop is killed once the
// stop has timed out. (This process, which holds the name here, is not.)
func TestStopThenSilent(t *testing.T) {
	g, _ := served(t, newRoster(t), func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	g.limits.silence = quick.silence
	timeout := 500 * time.Millisecond
	if err := g.Stop(ctx, &timeout); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "its process has ended") {
		t.Errorf("%v", err)
	}
}

// TestEndLeaves: once a wait for a guest's end returns, the guest can be removed.
func TestEndLeaves(t *testing.T) {
	const slow = 50 * time.Millisecond // to release the name after it has reported its end
	told := make(chan struct{})
	tell := sync.OnceFunc(func() { close(told) }) // probes call the handler, too
	r := newRoster(t)
	g, c := served(t, r, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"reason": "power off"}`)
		tell()
	})
	g.limits.leave = time.Minute
	go func() {
		<-told
		time.Sleep(slow)
		c.Release()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if end, err := g.End(ctx); err != nil || end.Reason != "power off" {
		t.Errorf("%+v, %v", end, err)
	}
	if err := r.Remove("web"); err != nil {
		t.Error(err)
	}
}

// TestStopped: a stopped process is recognized.
func TestStopped(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	g := api.Guest{State: api.Running, Pid: child.Process.Pid}
	if Stopped(g) {
		t.Error("it runs")
	}
	if err := child.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(g.Pid, nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	if !Stopped(g) {
		t.Error("it is stopped")
	}
	g.State = api.Ended
	if Stopped(g) || Stopped(api.Guest{}) {
		t.Error("a guest without a process is stopped")
	}
}
