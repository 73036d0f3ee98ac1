package blk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"vmm/devices/virtio"
)

var _ virtio.Device = (*Device)(nil)

const allFeatures = 1<<64 - 1

func newDevice(t testing.TB, image Image) *Device {
	t.Helper()
	return newWith(t, image, Config{Serial: "disk-1", Workers: 4})
}

func newWith(t testing.TB, image Image, c Config) *Device {
	t.Helper()
	d, err := New(image, c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// seg returns struct virtio_blk_discard_write_zeroes.
func seg(sector uint64, n, flags uint32) []byte {
	b := make([]byte, segmentSize)
	le.PutUint64(b, sector)
	le.PutUint32(b[8:], n)
	le.PutUint32(b[12:], flags)
	return b
}

const diskSectors = 256

const ro = true

func data(n int) []byte { return bytes.Repeat([]byte{0xab}, n) }

// requests says how the device answers each request, and what it asks of the image for
// it.
var requests = []struct {
	name     string
	out      []byte
	room     int // including the status
	want     status
	ops      string
	readOnly bool
}{
	{"read", header(typeIn, 3), 1024 + 1, statusOK, "read 3+2", false},
	{"read the end", header(typeIn, diskSectors-1), 512 + 1, statusOK, "read 255+1", ro},
	{"read beyond", header(typeIn, diskSectors-1), 1024 + 1, statusIOErr, "", false},
	{"read nothing", header(typeIn, diskSectors), 1, statusOK, "", false},
	{"read nothing beyond", header(typeIn, diskSectors+1), 1, statusIOErr, "", false},
	{"read at 2^55", header(typeIn, 1<<55), 512 + 1, statusIOErr, "", false},
	{"read at 2^64-1", header(typeIn, 1<<64-1), 512 + 1, statusIOErr, "", false},
	{"read at 2^64-512", header(typeIn, 1<<64-512), 1024 + 1, statusIOErr, "", false},
	{"read half a sector", header(typeIn, 0), 256 + 1, statusIOErr, "", false},
	{"write", header(typeOut, 9, data(1024)...), 1, statusOK, "write 9+2", false},
	{"write with room", header(typeOut, 9, data(512)...), 100, statusOK, "write 9+1", false},
	{"write nothing", header(typeOut, 9), 1, statusOK, "", false},
	{"write beyond", header(typeOut, diskSectors, data(512)...), 1, statusIOErr, "", false},
	{"write half a sector", header(typeOut, 9, data(700)...), 1, statusIOErr, "", false},
	{"write, read-only", header(typeOut, 9, data(512)...), 1, statusIOErr, "", ro},
	{"flush", header(typeFlush, 77), 1, statusOK, "flush 0+0", false},
	{"flush, read-only", header(typeFlush, 0), 1, statusOK, "flush 0+0", ro},
	{"ID", header(typeID, 0), idBytes + 1, statusOK, "", ro},
	{"short ID", header(typeID, 0), 4 + 1, statusOK, "", false},
	{"long ID", header(typeID, 0), 100 + 1, statusOK, "", false},
	{"discard", header(typeDiscard, 0, seg(8, 16, 0)...), 1, statusOK, "discard 8+16", false},
	{"discard two", header(typeDiscard, 0, append(seg(8, 16, 0), seg(0, 1, 0)...)...), 1, statusOK, "discard 8+16 discard 0+1", false},
	{"discard no sectors", header(typeDiscard, 0, seg(8, 0, 0)...), 1, statusOK, "", false},
	{"discard nothing", header(typeDiscard, 0), 1, statusIOErr, "", false},
	{"discard half a segment", header(typeDiscard, 0, seg(8, 16, 0)[:9]...), 1, statusIOErr, "", false},
	{"discard, then beyond", header(typeDiscard, 0, append(seg(8, 16, 0), seg(diskSectors, 1, 0)...)...), 1, statusIOErr, "", false},
	{"discard at 2^64-1", header(typeDiscard, 0, seg(1<<64-1, 2, 0)...), 1, statusIOErr, "", false},
	{"discard with unmap", header(typeDiscard, 0, seg(8, 16, 1)...), 1, statusUnsupp, "", false},
	{"discard, reserved flag", header(typeDiscard, 0, seg(8, 16, 2)...), 1, statusUnsupp, "", false},
	{"discard 64", header(typeDiscard, 0, bytes.Repeat(seg(8, 0, 0), 64)...), 1, statusOK, "", false},
	{"discard 65", header(typeDiscard, 0, bytes.Repeat(seg(8, 0, 0), 65)...), 1, statusIOErr, "", false},
	{"discard too many sectors", header(typeDiscard, 0, seg(0, maxDiscardSectors+1, 0)...), 1, statusIOErr, "", false},
	{"discard, read-only", header(typeDiscard, 0, seg(8, 16, 0)...), 1, statusIOErr, "", ro},
	{"zero", header(typeWriteZeroes, 0, seg(8, 16, 0)...), 1, statusOK, "zero 8+16", false},
	{"zero with unmap", header(typeWriteZeroes, 0, seg(8, 16, 1)...), 1, statusOK, "unmap 8+16", false},
	{"zero, reserved flag", header(typeWriteZeroes, 0, seg(8, 16, 5)...), 1, statusUnsupp, "", false},
	{"zero two", header(typeWriteZeroes, 0, append(seg(8, 16, 0), seg(0, 1, 0)...)...), 1, statusIOErr, "", false},
	{"zero, read-only", header(typeWriteZeroes, 0, seg(8, 16, 0)...), 1, statusIOErr, "", ro},
	{"zero all and more", header(typeWriteZeroes, 0, seg(0, diskSectors+1, 0)...), 1, statusIOErr, "", false},
	{"secure erase", header(14, 0, seg(8, 16, 0)...), 1, statusUnsupp, "", false},
	{"SCSI", header(2, 0), 1, statusUnsupp, "", false},
	{"type -1", header(1<<32-1, 0), 513, statusUnsupp, "", false},
	{"short header", header(typeFlush, 0)[:15], 1, statusIOErr, "", false},
	{"no header", nil, 513, statusIOErr, "", false},
	{"no status", header(typeOut, 0, data(512)...), 0, statusLater, "", false},
}

func TestRequests(t *testing.T) {
	for _, test := range requests {
		t.Run(test.name, func(t *testing.T) {
			m := newMemory(t, diskSectors*512)
			m.readOnly = test.readOnly
			for name, image := range map[string]Image{"waits": m, "at once": cached{m}} {
				m.ops = nil
				d := start(t, newDevice(t, image), allFeatures)
				in, n, s := d.do(ask{out: test.out, room: test.room})
				if s != test.want || n != uint32(test.room) {
					t.Errorf("%s: status %d, used %d; want %d, %d", name, s, n, test.want, test.room)
				}
				if got := strings.Join(m.ops, " "); got != test.ops {
					t.Errorf("%s: did %q, want %q", name, got, test.ops)
				}
				checkRoom(t, m, test.out, in, s)
				d.stop()
			}
		})
	}
}

// checkRoom checks that the device overwrote all that it says it wrote.
func checkRoom(t *testing.T, m *memory, out, in []byte, s status) {
	want := make([]byte, len(in))
	if s == statusOK {
		switch le.Uint32(out) {
		case typeIn:
			copy(want, m.bytes[le.Uint64(out[8:])*512:])
		case typeID:
			copy(want, "disk-1")
		case typeOut:
			if sector := le.Uint64(out[8:]); !bytes.HasPrefix(m.bytes[sector*512:], out[16:]) {
				t.Error("the data is not on the disk")
			}
		}
	}
	if !bytes.Equal(in, want) {
		t.Errorf("written %x, want %x", in, want)
	}
}

// TestFraming: how a request is cut into buffers does not matter, §2.7.4.1.
func TestFraming(t *testing.T) {
	m := newMemory(t, diskSectors*512)
	d := start(t, newDevice(t, m), allFeatures)
	cuts := [][]int{nil, {16}, {1}, {15, 2}, {16, 512}, {16, 100}, {8, 8, 1, 1, 510}, {17}, {512}, {513}, {1000, 1}, {1024}}
	for _, out := range cuts {
		for _, in := range cuts {
			data := bytes.Repeat([]byte{byte(len(out)), byte(len(in)), 3, 4}, 256)
			if _, n, s := d.do(ask{header(typeOut, 5, data...), out, 1, in}); s != statusOK || n != 1 {
				t.Fatalf("write, %v %v: status %d, used %d", out, in, s, n)
			}
			got, n, s := d.do(ask{header(typeIn, 5), out, 1025, in})
			if s != statusOK || n != 1025 || !bytes.Equal(got, data) {
				t.Fatalf("read, %v %v: status %d, used %d", out, in, s, n)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	m := newMemory(t, diskSectors*512)
	d := start(t, newDevice(t, m), allFeatures)
	requests := map[string]ask{
		"read":    {out: header(typeIn, 0), room: 513},
		"write":   {out: header(typeOut, 0, make([]byte, 512)...), room: 1},
		"flush":   {out: header(typeFlush, 0), room: 1},
		"discard": {out: header(typeDiscard, 0, seg(0, 1, 0)...), room: 1},
		"zero":    {out: header(typeWriteZeroes, 0, seg(0, 1, 0)...), room: 1},
	}
	for _, test := range []struct {
		err  error
		want status
	}{{nil, statusOK}, {unix.EIO, statusIOErr}, {unix.ENOSPC, statusIOErr}, {fmt.Errorf("disk x: %w", unix.EOPNOTSUPP), statusUnsupp}, {errors.New("else"), statusIOErr}} {
		for op, a := range requests {
			m.fail = func(got string) error {
				if got == op {
					return test.err
				}
				return nil
			}
			if in, n, s := d.do(a); s != test.want || n != uint32(a.room) || s != statusOK && len(in) > 0 && !bytes.Equal(in, make([]byte, len(in))) {
				t.Errorf("%s, %v: status %d, used %d", op, test.err, s, n)
			}
		}
	}
}

// TestWriteThrough: without FLUSH a write is stable when it completes, §5.2.6.2.
func TestWriteThrough(t *testing.T) {
	m := newMemory(t, diskSectors*512)
	d := start(t, newDevice(t, cached{m}), allFeatures&^featureFlush)
	d.do(ask{out: header(typeOut, 0, make([]byte, 512)...), room: 1})
	d.do(ask{out: header(typeWriteZeroes, 0, seg(0, 1, 0)...), room: 1})
	want := []string{"write 0+1", "flush 0+0", "zero 0+1", "flush 0+0"}
	if !slices.Equal(m.ops, want) {
		t.Errorf("did %q", m.ops)
	}
	m.fail = func(op string) error {
		if op == "flush" {
			return unix.EIO
		}
		return nil
	}
	if _, _, s := d.do(ask{out: header(typeOut, 0, make([]byte, 512)...), room: 1}); s != statusIOErr {
		t.Errorf("status %d of a write that is not stable", s)
	}
}

func TestNotNegotiated(t *testing.T) {
	d := start(t, newDevice(t, newMemory(t, 4096)), 0)
	for _, kind := range []uint32{typeDiscard, typeWriteZeroes} {
		if _, _, s := d.do(ask{out: header(kind, 0, seg(0, 1, 0)...), room: 1}); s != statusUnsupp {
			t.Errorf("type %d: status %d", kind, s)
		}
	}
}

func TestNew(t *testing.T) {
	m := newMemory(t, 4096)
	for _, c := range []Config{{Serial: strings.Repeat("x", 21)}, {Queues: 1025}} {
		if _, err := New(m, c); err == nil || !strings.HasPrefix(err.Error(), "block device: ") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	d := newWith(t, m, Config{Serial: strings.Repeat("x", 20), Queues: 3})
	if len(d.QueueSizes()) != 3 || d.QueueSizes()[2] != 256 || d.ID() != virtio.IDBlock || d.workers != Workers {
		t.Errorf("%d queues, %d workers", d.queues, d.workers)
	}
}

// TestLog: a host that fails causes one line in the device's log, however often the
// guest tries or starts the device anew.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	m := newMemory(t, diskSectors*512)
	m.fail = func(string) error { return errors.New("no space left") }
	dev, err := New(m, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		d := start(t, dev, featureFlush)
		for range 5 {
			if _, _, s := d.do(ask{out: header(typeIn, 3), room: 513}); s != statusIOErr {
				t.Errorf("status %d", s)
			}
		}
		d.stop()
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no space left") {
		t.Errorf("%d lines: %s", n, &log)
	}
}
