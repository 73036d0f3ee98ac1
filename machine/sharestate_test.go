package machine

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"vmm/hostdir"
)

// TestShareState: a guest continues in another machine with its files open, from the
// state that the device saves.
func TestShareState(t *testing.T) {
	host := sharedTree(t)
	g := newShareGuest(t, host, hostdir.Options{})
	if _, errno := g.do(26, 0, append([]byte{7, 0, 0, 0, 38, 0, 0, 0}, make([]byte, 56)...), 80); errno != 0 {
		t.Fatal(errno)
	}
	node := g.lookup(1, "file")
	fh := g.open(node, unix.O_RDWR)
	saved := g.pause()

	h := newShareGuest(t, host, hostdir.Options{})
	h.pause()
	if err := h.dev.Load(saved); err != nil {
		t.Fatal(err)
	}
	h.resume()
	defer h.close()
	read := func() string {
		out, errno := h.do(fuseRead, node, append(u64(fh, 0, 100), make([]byte, 16)...), 116)
		if errno != 0 {
			t.Fatal(errno)
		}
		return string(out)
	}
	if got := read(); got != "text" {
		t.Errorf("the file has %q", got)
	}
	if _, errno := h.do(16, node, append(u64(fh, 4, 5), append(make([]byte, 16), " more"...)...), 24); errno != 0 {
		t.Error(errno)
	}
	if got := read(); got != "text more" {
		t.Errorf("the file has %q", got)
	}
	if again := h.lookup(1, "file"); again != node {
		t.Errorf("node %d, was %d", again, node)
	}
	h.dev.Stop()
	if again, err := h.dev.Save(); err != nil || bytes.Equal(again, saved) {
		t.Errorf("a lookup more leaves the state as it was: %v", err) // the state counts lookups
	}
	if err := h.dev.Start(0, nil); err != nil {
		t.Fatal(err)
	}
	g.resume()
	g.close()
}

// pause stops the device and returns the device's state.
func (g *shareGuest) pause() []byte {
	g.Helper()
	g.dev.Stop()
	b, err := g.dev.Save()
	if err != nil {
		g.Fatal(err)
	}
	return b
}

func (g *shareGuest) resume() {
	g.Helper()
	if err := g.dev.Start(0, nil); err != nil {
		g.Fatal(err)
	}
}
