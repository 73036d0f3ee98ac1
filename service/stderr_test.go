package service

import (
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sizes returns the sizes of a log's files.
func sizes(t *testing.T, root *os.Root) (now, older int64) {
	t.Helper()
	for name, n := range map[string]*int64{"stderr.log": &now, "stderr.log.1": &older} {
		if info, err := root.Lstat(name); err == nil {
			*n = info.Size()
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return now, older
}

// TestStderr: at least the end of what is printed to standard error is kept, and the log
// stays bounded, although no process passes the output on.
func TestStderr(t *testing.T) {
	const most = 1000
	f := newFixture(t, Options{})
	var stderr atomic.Pointer[os.File]
	if err := f.keepStderr("stderr.log", most, func(f *os.File) error { stderr.Store(f); return nil }); err != nil {
		t.Fatal(err)
	}
	root := f.claim.Root()
	for range 20 {
		before := stderr.Load()
		if _, err := io.WriteString(before, strings.Repeat("x", most)); err != nil {
			t.Fatal(err)
		}
		f.await(t, func() bool { return stderr.Load() != before })
		if now, older := sizes(t, root); now != 0 || older != most {
			t.Fatalf("%d and %d bytes", now, older)
		}
	}
	io.WriteString(stderr.Load(), "the last words")
	f.Kill(9)
	if err := f.Guest.stderr.Close(); err != nil {
		t.Error(err)
	}
	f.Guest.stderr = nil
	if b, err := root.ReadFile("stderr.log"); string(b) != "the last words" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestStderrBlind: the same on a host with no inotify instances left, and on a full disk,
// where no next file can be made.
func TestStderrBlind(t *testing.T) {
	const most = 1000
	synctest.Test(t, func(t *testing.T) {
		root := folder(t)
		log, err := openLog(root, "stderr.log", most)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		now := log.f
		s := &stderr{log: log, end: make(chan struct{}), blind: true, use: func(f *os.File) error {
			mu.Lock()
			defer mu.Unlock()
			now = f
			return nil
		}}
		s.bound.Go(s.turn)
		print := func() {
			mu.Lock()
			defer mu.Unlock()
			io.WriteString(now, strings.Repeat("x", most))
		}
		print()
		time.Sleep(lookAgain + time.Second)
		synctest.Wait()
		if now, older := sizes(t, root); now != 0 || older != most {
			t.Errorf("%d and %d bytes", now, older)
		}
		if err := root.MkdirAll("stderr.log.new/x", 0o700); err != nil { // no next file can be made
			t.Fatal(err)
		}
		print()
		time.Sleep(lookAgain + time.Second)
		synctest.Wait()
		if now, older := sizes(t, root); now != 0 || older != most {
			t.Errorf("%d and %d bytes on a full disk", now, older)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
