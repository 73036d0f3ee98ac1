package virtq_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"vmm/devices/virtio/virtq"
)

// split cuts p into buffers of the given lengths.
func split(p []byte, lengths ...int) (bufs [][]byte) {
	for _, n := range lengths {
		bufs, p = append(bufs, p[:n:n]), p[n:]
	}
	return bufs
}

func TestRead(t *testing.T) {
	c := &virtq.Chain{Readable: split([]byte("0123456789"), 3, 1, 6)}
	p := make([]byte, 4)
	for _, want := range []string{"0123", "4567", "89"} {
		if n := c.Read(p); string(p[:n]) != want {
			t.Errorf("read %q, want %q", p[:n], want)
		}
	}
	if n := c.Read(p); n != 0 || c.ReadableLen() != 0 {
		t.Errorf("read %d behind the end", n)
	}

	c.Readable = split([]byte("0123456789"), 3, 1, 6)
	if !c.ReadFull(p) || string(p) != "0123" || !c.ReadFull(p[:0]) || c.ReadFull(make([]byte, 7)) {
		t.Error("ReadFull")
	}
	if got := c.ReadableLen(); got != 6 {
		t.Errorf("%d bytes left", got)
	}
	if rest := make([]byte, 6); !c.ReadFull(rest) || string(rest) != "456789" || c.ReadFull(p) {
		t.Error("ReadFull of the rest")
	}
}

func TestWrite(t *testing.T) {
	ram := make([]byte, 10)
	c := &virtq.Chain{Writable: split(ram, 1, 2, 3, 4)}
	if n := c.Write([]byte("abcd")); n != 4 || c.WritableLen() != 6 {
		t.Errorf("wrote %d, left %d", n, c.WritableLen())
	}
	if n := c.Write([]byte("efghijkl")); n != 6 || string(ram) != "abcdefghij" || c.WritableLen() != 0 {
		t.Errorf("wrote %d: %q", n, ram)
	}
	if n := c.Write([]byte("x")); n != 0 {
		t.Errorf("wrote %d behind the end", n)
	}
}

// TestCut cuts chains of random framing. The cut part and the rest together are the
// original.
func TestCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		ram := make([]byte, 1+rnd.IntN(12))
		for i := range ram {
			ram[i] = byte('a' + i)
		}
		var lengths []int
		for left := len(ram); left > 0; {
			lengths = append(lengths, 1+rnd.IntN(left))
			left -= lengths[len(lengths)-1]
		}
		c := &virtq.Chain{Writable: split(bytes.Clone(ram), lengths...)}
		n := rnd.IntN(len(ram) + 1)
		second := rnd.IntN(len(ram) - n + 1)
		third := rnd.IntN(len(ram) - n - second + 1)
		last := c.CutLast(n)
		first := c.CutFirst(third)
		before := c.CutLast(second)
		for _, b := range slices.Concat(first, c.Writable, before, last) {
			if len(b) == 0 || cap(b) != len(b) {
				t.Fatalf("%d of %v: a buffer of %d bytes and capacity %d", n, lengths, len(b), cap(b))
			}
		}
		got := bytes.Join([][]byte{bytes.Join(first, nil), bytes.Join(c.Writable, nil), bytes.Join(before, nil), bytes.Join(last, nil)}, []byte("|"))
		mid := len(ram) - n
		want := bytes.Join([][]byte{ram[:third], ram[third : mid-second], ram[mid-second : mid], ram[mid:]}, []byte("|"))
		if !bytes.Equal(got, want) {
			t.Fatalf("%d, %d and %d of %v: %q, want %q", third, second, n, lengths, got, want)
		}
		left := c.WritableLen()
		if c.CutLast(int(left)+1) != nil || c.CutFirst(int(left)+1) != nil || c.WritableLen() != left {
			t.Fatal("cut more than there is")
		}
	}
}
