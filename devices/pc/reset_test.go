package pc

import (
	"bytes"
	"testing"
)

func TestResetControl(t *testing.T) {
	type write struct {
		off    uint64
		p      []byte
		resets int // so far
	}
	for name, writes := range map[string][]write{
		"linux, warm":    {{1, []byte{0x02}, 0}, {1, []byte{0x06}, 1}},
		"linux, cold":    {{1, []byte{0x02}, 0}, {1, []byte{0x0e}, 1}},
		"at once":        {{1, []byte{0x04}, 1}},
		"an edge":        {{1, []byte{0x06}, 1}, {1, []byte{0x06}, 1}, {1, []byte{0}, 1}, {1, []byte{0x04}, 2}},
		"CONFIG_ADDRESS": {{0, []byte{0, 0x06, 0, 0x80}, 0}},
		"beside it":      {{0, []byte{0x06}, 0}, {2, []byte{0x06}, 0}, {3, []byte{0x06}, 0}},
		"two bytes":      {{0, []byte{0, 0x06}, 1}},
		"other bits":     {{1, []byte{0xf1}, 0}},
	} {
		n := 0
		c := &ResetControl{Reset: func() { n++ }}
		for _, w := range writes {
			if c.Write(w.off, w.p); n != w.resets {
				t.Errorf("%s: % x at %d: %d resets, want %d", name, w.p, w.off, n, w.resets)
			}
		}
	}
	c := &ResetControl{Reset: func() {}}
	c.Write(1, []byte{0xff})
	p := bytes.Repeat([]byte{0xff}, 4)
	if c.Read(0, p); !bytes.Equal(p, []byte{0xff, 0x0e, 0xff, 0xff}) {
		t.Errorf("read % x", p)
	}
}
