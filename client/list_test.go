package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"vmm/api"
	"vmm/roster"
	"vmm/test/allow"
)

func newRoster(t *testing.T) *roster.Roster {
	t.Helper()
	r, err := roster.Create(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func claim(t *testing.T, r *roster.Roster, name, record string) *roster.Claim {
	t.Helper()
	c, err := r.Claim(name, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(c) }) // otherwise its name is released
	if record != "" {
		if err := c.SetRecord([]byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestList: a guest is listed as its last record says, unless it could not record its
// end.
func TestList(t *testing.T) {
	r := newRoster(t)
	claim(t, r, "new", "")
	claim(t, r, "runs", `{"name":"another","state":"running","pid":7}`)
	for name, record := range map[string]string{
		"ended": `{"state":"ended","end":{"reason":"power off","status":0}}`, "shot": `{"state":"running","pid":8}`, "shot-early": "",
	} {
		if err := claim(t, r, name, record).Release(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := List(r)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name   string
		state  api.State
		reason string
	}{{"ended", api.Ended, "power off"}, {"new", api.Starting, ""}, {"runs", api.Running, ""}, {"shot", api.Ended, Killed}, {"shot-early", api.Ended, Killed}}
	if len(all) != len(want) {
		t.Fatalf("%+v", all)
	}
	for i, w := range want {
		g := all[i]
		if g.Name != w.name || g.State != w.state || (g.End == nil) != (w.reason == "") || g.End != nil && g.End.Reason != w.reason {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
	g, err := Open(r, "shot")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := g.End(context.Background()); err != nil || e.Status != 137 {
		t.Errorf("%+v, %v", e, err)
	}
	if err := g.Pause(context.Background()); !errors.Is(err, ErrEnded) {
		t.Errorf("pause: %v", err)
	}
	if _, err := g.Console(context.Background()); !errors.Is(err, ErrEnded) {
		t.Errorf("console: %v", err)
	}
}

// TestBadRecord: an invalid record is an error that names the guest's folder, except when
// all guests are listed.
func TestBadRecord(t *testing.T) {
	r := newRoster(t)
	bad := claim(t, r, "bad", "{")
	claim(t, r, "good", `{"state":"paused"}`)
	var path *os.PathError
	if _, err := Describe(bad.Entry); !errors.As(err, &path) || filepath.Base(path.Path) != "bad" {
		t.Errorf("%v", err)
	}
	all, err := List(r)
	if err != nil || len(all) != 2 || all[0].Name != "bad" || all[0].State != api.Starting || all[1].State != api.Paused {
		t.Errorf("%+v, %v", all, err)
	}
	if err := bad.SetRecord([]byte(`{"state":"ended"}`)); err != nil { // and nothing else
		t.Fatal(err)
	}
	bad.Release()
	if all, err = List(r); err != nil || all[0].End == nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// FuzzDescribe: whatever a record says, a guest whose process has gone has an end and its
// own name.
func FuzzDescribe(f *testing.F) {
	for _, record := range []string{"", "{}", "null", "[]", `{"state":"ended"}`, `{"state":"running","end":{}}`, `{"name":"x","config":null,"pid":-1}`, `{"created":"yesterday"}`} {
		f.Add([]byte(record))
	}
	r, err := roster.Create(filepath.Join(f.TempDir(), "r"))
	if err != nil {
		f.Fatal(err)
	}
	c, err := r.Claim("web", true)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		if err := c.SetRecord(record); err != nil {
			t.Fatal(err)
		}
		gone := roster.Entry{Name: c.Name, Dir: c.Dir}
		if g, err := Describe(gone); err == nil && (g.Name != "web" || g.State != api.Ended || g.End == nil) {
			t.Errorf("%+v", g)
		}
		if g, err := Describe(c.Entry); err == nil {
			Stopped(g)
		}
	})
}

// TestLeave: a waiter learns when a name is released.
func TestLeave(t *testing.T) {
	r := newRoster(t)
	c := claim(t, r, "web", "")
	g, err := Open(r, "web")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.Leave(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	left := make(chan error, 1)
	go func() { left <- g.Leave(t.Context()) }()
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-left:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(allow.Time(10 * time.Second)):
		t.Error("it waits for ever")
	}
}
