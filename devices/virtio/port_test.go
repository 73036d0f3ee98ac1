package virtio

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
	"vmm/mem"
)

// TestPortWrites: a write that arrives as an exit rings only if a doorbell would take
// it: the number of a queue, in 16 bits, at the first port.
func TestPortWrites(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 0x1000)})
	d, err := NewPCI(null{}, 0, Config{Mem: m})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(deadline)
	rung := func(queue int) bool {
		p := []unix.PollFd{{Fd: int32(d.kicks[queue].Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n != 0 {
			unix.Read(int(p[0].Fd), make([]byte, 8))
		}
		return n != 0
	}
	port := pciPort{d}
	for _, test := range []struct {
		off   uint64
		p     string
		queue int // the queue that is rung, -1: none
	}{
		{0, "\x00\x00", 0}, {0, "\x01\x00", 1}, {0, "\x02\x00", -1}, {0, "\x00\x01", -1}, {0, "\xff\xff", -1},
		{0, "", -1}, {0, "\x00", -1}, {0, "\x00\x00\x00", -1}, {0, "\x00\x00\x00\x00", -1}, {0, "\x01\x00\x00\x00", -1},
		{1, "\x00\x00", -1}, {2, "\x00\x00", -1}, {3, "\x00", -1},
	} {
		port.Write(test.off, []byte(test.p))
		for i := range d.kicks {
			if got := rung(i); got != (i == test.queue) {
				t.Errorf("%x to port %d: queue %d is rung: %v", test.p, test.off, i, got)
			}
		}
		p := make([]byte, len(test.p))
		if port.Read(test.off, p); !bytes.Equal(p, bytes.Repeat([]byte{0xff}, len(p))) {
			t.Errorf("port %d reads as %x", test.off, p)
		}
	}
}
