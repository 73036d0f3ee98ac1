package blk

import (
	"bytes"
	"testing"
)

func TestConfig(t *testing.T) {
	m := newMemory(t, 1<<20)
	d := newWith(t, m, Config{Queues: 4})
	b := make([]byte, configSize)
	d.ReadConfig(0, b)
	for _, test := range []struct {
		name      string
		off, size int
		want      uint64
	}{
		{"capacity", 0, 8, 2048}, {"size_max", 8, 4, 256 << 10}, {"seg_max", 12, 4, 254}, {"geometry", 16, 4, 0},
		{"blk_size", 20, 4, 512}, {"physical_block_exp", 24, 1, 3}, {"alignment_offset", 25, 1, 0},
		{"min_io_size", 26, 2, 8}, {"opt_io_size", 28, 4, 128}, {"writeback", 32, 1, 0}, {"unused0", 33, 1, 0},
		{"num_queues", 34, 2, 4}, {"max_discard_sectors", 36, 4, 1 << 21}, {"max_discard_seg", 40, 4, 64},
		{"discard_sector_alignment", 44, 4, 8}, {"max_write_zeroes_sectors", 48, 4, 1 << 17},
		{"max_write_zeroes_seg", 52, 4, 1}, {"write_zeroes_may_unmap", 56, 1, 1}, {"unused1", 57, 3, 0}, {"max_secure_erase", 60, 8, 0},
	} {
		var v [8]byte
		copy(v[:], b[test.off:test.off+test.size])
		if got := le.Uint64(v[:]); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	whole := append(b, make([]byte, 16)...)
	d.WriteConfig(0, bytes.Repeat([]byte{0xff}, configSize)) // dropped
	for off := range uint64(configSize + 8) {
		for _, n := range []int{1, 2, 4, 8} {
			p := make([]byte, n)
			if d.ReadConfig(off, p); !bytes.Equal(p, whole[off:][:n]) {
				t.Errorf("%d bytes at %d: %x", n, off, p)
			}
		}
	}
	for _, off := range []uint64{1 << 32, 1<<64 - 1} {
		p := make([]byte, 8)
		if d.ReadConfig(off, p); !bytes.Equal(p, make([]byte, 8)) {
			t.Errorf("at %#x: %x", off, p)
		}
	}
}

func TestFeatures(t *testing.T) {
	const always = 1<<1 | 1<<2 | 1<<6 | 1<<9 | 1<<10
	for _, test := range []struct {
		readOnly bool
		queues   int
		want     uint64
	}{{false, 1, always | 1<<13 | 1<<14}, {true, 0, always | 1<<5}, {false, 2, always | 1<<12 | 1<<13 | 1<<14}} {
		m := newMemory(t, 4096)
		m.readOnly = test.readOnly
		d := newWith(t, m, Config{Queues: test.queues})
		if got := d.Features(); got != test.want {
			t.Errorf("%+v: %#x", test, got)
		}
	}
	m := newMemory(t, 4096)
	m.topology = [4]int{4096, 512, 0, 0} // a host that knows less than it should
	if exp := newWith(t, m, Config{}).config[configPhysicalBlockExp]; exp != 0 {
		t.Errorf("physical_block_exp %d", exp)
	}
}

// TestBound: a conforming driver never reaches maxBytes.
func TestBound(t *testing.T) {
	if segMax*sizeMax > maxBytes {
		t.Errorf("%d segments of %d bytes are more than %d", segMax, sizeMax, maxBytes)
	}
}
