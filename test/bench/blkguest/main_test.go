package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLoop: all operations are counted, stay in bounds, and write what they should.
func TestLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	const length = 1 << 20
	if err := os.WriteFile(path, make([]byte, length), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range []phase{{"random", 4096, 8, true, false}, {"one", 4096, 1, true, false}, {"write", 1 << 16, 4, false, true}} {
		q, err := newQueue(int(f.Fd()), p.depth, p.size, p.write)
		if err != nil {
			t.Skip(err) // a kernel without AIO
		}
		asked := 0
		next := p.places(length)
		place := func() int64 {
			asked++
			at := next()
			if at < 0 || at+int64(p.size) > length || at%int64(p.size) != 0 {
				t.Fatalf("%s: an operation at %d", p.name, at)
			}
			return at
		}
		operations, took, err := p.loop(q, place, 30*time.Millisecond)
		if err != nil || operations != asked || operations < p.depth || took < 30*time.Millisecond {
			t.Errorf("%s: %d operations of %d in %v, %v", p.name, operations, asked, took, err)
		}
		q.close()
	}
	if b, err := os.ReadFile(path); err != nil || b[1] != 7 {
		t.Errorf("nothing was written: %v", err)
	}
}

func TestSmallDisk(t *testing.T) {
	if err := (phase{"read", 4096, 2, false, false}).run(-1, 8191); err == nil {
		t.Error("a disk that is too small is read")
	}
}
