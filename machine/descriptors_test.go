package machine

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/guest/payload"
)

// TestDivide: for any number of descriptors, the parts of a machine together get no
// more than that, each gets its least, and what none can use is left.
func TestDivide(t *testing.T) {
	config := func(shares, nets, sockets int) *Config {
		c := &Config{CPUs: 4, Shares: make([]Share, shares), Nets: make([]Net, nets)}
		if sockets > 0 {
			c.Vsock = &Vsock{}
		}
		return c
	}
	for _, c := range []*Config{config(0, 0, 0), config(1, 0, 0), config(0, 1, 0), config(0, 0, 1), config(1, 1, 1), config(5, 1, 1), config(16, 8, 1)} {
		for _, n := range []int{-5, 0, 100, 500, 704, 3776, 65000, 1 << 20, 1 << 26} {
			b, all, ok := divide(n, c)
			name := fmt.Sprintf("%d among %d shares, %d networks: %+v", n, len(c.Shares), len(c.Nets), b)
			sum := fixedDescriptors(c) + len(c.Shares)*b.share + len(c.Nets)*b.network
			if c.Vsock != nil {
				sum += b.vsock
			}
			if sum != all || ok && all > n || !ok && all <= n {
				t.Errorf("%s: %d in all, said to be %d, %v", name, sum, all, ok)
			}
			if b.share < shareNeed.least || b.share > shareNeed.most || b.network < networkNeed.least || b.network > networkNeed.most || b.vsock < vsockNeed.least || b.vsock > vsockNeed.most {
				t.Errorf("%s: out of bounds", name)
			}
			if _, least, _ := divide(-1, c); ok && all > max(least, n/4*3) {
				t.Errorf("%s: nothing is left for another machine", name)
			}
			weights := 4*len(c.Shares) + len(c.Nets) + 1
			if ok && len(c.Shares) > 0 && n/4*3-all > weights && b.share < shareNeed.most {
				t.Errorf("%s: %d are left", name, n-all)
			}
		}
	}
}

// TestFixedDescriptors: a machine opens at most as many descriptors as promised.
func TestFixedDescriptors(t *testing.T) {
	c := crowded(t)
	warm(t, c)
	before := openDescriptors()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := openDescriptors() - before; n > fixedDescriptors(&c) || n < fixedDescriptors(&c)/4 {
		t.Errorf("%d are open; said to be %d", n, fixedDescriptors(&c))
	}
}

// TestPromised: machines together get no more descriptors than exist. One that cannot
// get its least is told how to fix that, and what is closed is given back.
func TestPromised(t *testing.T) {
	c := crowded(t)
	warm(t, c)
	limited(t, unix.RLIMIT_NOFILE, uint64(openDescriptors()+Reserved+fixedDescriptors(&c)+400), func() {
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		two := payloadConfig(t, payload.Spin())
		two.Shares = c.Shares
		_, err = New(two)
		var host *HostError
		if !errors.As(err, &host) {
			t.Errorf("another: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if m, err = New(two); err != nil {
			t.Errorf("another, later: %v", err)
		} else {
			m.Close()
		}
	})
}

// TestLogBounded: a machine that logs the same line again and again does not fill the
// log.
func TestLogBounded(t *testing.T) {
	var b bytes.Buffer
	m := newMachine(Config{Log: slog.New(slog.NewTextHandler(&b, nil))})
	for range 1000 {
		m.log.With("disk", "d").Warn("a write fails")
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n == 0 || n > 100 {
		t.Errorf("%d lines", n)
	}
}

// TestReserved: however much a guest opens in its shares, descriptors remain for
// those who want to stop it.
func TestReserved(t *testing.T) {
	c := crowded(t)
	const files = 1500
	for i := range files {
		if err := os.WriteFile(filepath.Join(c.Shares[0].Dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	warm(t, c)
	limited(t, unix.RLIMIT_NOFILE, uint64(openDescriptors()+Reserved+fixedDescriptors(&c)+1200), func() {
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		refused := 0
		for i := range files {
			var out fuse.EntryOut
			if s := m.devices.shares[0].Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, fmt.Sprint(i), &out); s == fuse.Status(unix.ENFILE) {
				refused++
			} else if !s.Ok() {
				t.Fatalf("file %d: %v", i, s)
			}
		}
		if refused == 0 {
			t.Error("no bound")
		}
		var left []int
		for range Reserved {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Errorf("%d are left: %v", len(left), err)
				break
			}
			left = append(left, fd)
		}
		for _, fd := range left {
			unix.Close(fd)
		}
	})
}
