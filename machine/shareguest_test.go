package machine

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio/fs"
	"vmm/devices/virtio/virtq"
	"vmm/eventfd"
	"vmm/hostdir"
	"vmm/mem"
	"vmm/test/allow"
)

// Addresses in a shareGuest's RAM.
const (
	shareDesc, shareAvail, shareUsed = 0x1000, 0x6000, 0x8000
	shareOut, shareIn, shareRAM      = 0x10000, 0x200000, 0x400000
	shareQueue                       = 1024
)

// A shareGuest drives the file system device of a shared directory with FUSE
// requests, as a guest kernel would.
type shareGuest struct {
	testing.TB
	dir  *hostdir.Dir
	dev  *fs.Device
	host string
	ram  []byte
	q    *virtq.Queue
	kick *eventfd.FD
	irq  *eventfd.FD

	avail, used       uint16
	availIdx, usedIdx mem.U16
	unique            uint64
	served            chan struct{}
}

func newShareGuest(tb testing.TB, host string, o hostdir.Options) *shareGuest {
	tb.Helper()
	g := &shareGuest{TB: tb, host: host, ram: make([]byte, shareRAM), served: make(chan struct{})}
	var errs [4]error
	g.dir, errs[0] = hostdir.Open(host, o)
	g.kick, errs[1] = eventfd.New()
	g.irq, errs[2] = eventfd.New()
	if err := errors.Join(errs[:]...); err != nil {
		tb.Fatal(err)
	}
	g.dev, errs[3] = fs.New(g.dir, fs.Config{Tag: "share"})
	m := mem.New(mem.Region{Bytes: g.ram})
	g.availIdx, _ = m.U16(shareAvail + 2)
	g.usedIdx, _ = m.U16(shareUsed + 2)
	layout := virtq.Layout{Size: shareQueue, Desc: shareDesc, Driver: shareAvail, Device: shareUsed}
	var err error
	g.q, err = virtq.New(m, layout, virtq.Format{}, virtq.State{}, g.irq.Signal)
	if err = errors.Join(err, errs[3], g.dev.Start(0, nil)); err != nil {
		tb.Fatal(err)
	}
	g.dev.Serve(1, g.q) // enables kicks
	go func() {
		defer close(g.served)
		for g.kick.Wait() == nil {
			g.dev.Serve(1, g.q)
		}
	}()
	return g
}

// close does what the transport does, and checks that nothing is left open.
func (g *shareGuest) close() {
	g.q.Stop()
	g.kick.Stop()
	<-g.served
	select {
	case <-g.q.Drained():
	case <-time.After(allow.Time(20 * time.Second)):
		g.Error("a chain is not pushed")
	}
	g.dev.Stop()
	if err := errors.Join(g.dir.Close(), g.kick.Close(), g.irq.Close()); err != nil {
		g.Error(err)
	}
}

// chain makes the device's input and room for its output available, in page-sized
// pieces as Linux does.
func (g *shareGuest) chain(out []byte, room int) {
	le := binary.LittleEndian
	copy(g.ram[shareOut:], out)
	next := 0
	add := func(addr, n int, flags uint16) {
		e := g.ram[shareDesc+16*next:]
		le.PutUint64(e, uint64(addr))
		le.PutUint32(e[8:], uint32(n))
		le.PutUint16(e[12:], flags|1)
		le.PutUint16(e[14:], uint16(next+1))
		next++
	}
	cut := func(addr, n, first int, flags uint16) {
		for size := first; n > 0; size = 4096 {
			size = min(size, n)
			add(addr, size, flags)
			addr, n = addr+size, n-size
		}
	}
	cut(shareOut, len(out), 40, 0)
	cut(shareIn, room, 16, 2)
	if next == 0 {
		add(shareOut, 0, 0)
	}
	last := g.ram[shareDesc+16*(next-1)+12:]
	le.PutUint16(last, le.Uint16(last)&^1)
	le.PutUint16(g.ram[shareAvail+4+2*int(g.avail%shareQueue):], 0)
	g.avail++
}

// again makes the last chain available once more, and waits until it is done.
func (g *shareGuest) again() {
	binary.LittleEndian.PutUint16(g.ram[shareAvail+4+2*int(g.avail%shareQueue):], 0)
	g.avail++
	g.wait()
}

// wait kicks the device, waits for the answer, and returns the answer's length.
func (g *shareGuest) wait() int {
	g.availIdx.Store(g.avail)
	g.kick.Signal()
	for g.usedIdx.Load() == g.used {
		g.irq.Wait()
	}
	g.used++
	return int(binary.LittleEndian.Uint32(g.ram[shareUsed+8+8*int((g.used-1)%shareQueue):]))
}

// do makes a request and returns the answer without its header, and the error.
func (g *shareGuest) do(opcode uint32, node uint64, body []byte, room int) ([]byte, unix.Errno) {
	g.Helper()
	g.chain(g.request(opcode, node, body), room)
	n := g.wait()
	if n < 16 {
		g.Fatalf("opcode %d: an answer of %d bytes", opcode, n)
	}
	in := g.ram[shareIn:][:n]
	le := binary.LittleEndian
	if le.Uint64(in[8:]) != g.unique || int(le.Uint32(in)) != n {
		g.Fatalf("opcode %d: header % x of %d bytes", opcode, in[:16], n)
	}
	return in[16:], unix.Errno(-int32(le.Uint32(in[4:])))
}

func (g *shareGuest) request(opcode uint32, node uint64, body []byte) []byte {
	g.unique++
	le := binary.LittleEndian
	out := le.AppendUint32(nil, uint32(40+len(body)))
	out = le.AppendUint32(out, opcode)
	out = le.AppendUint64(out, g.unique)
	out = le.AppendUint64(out, node)
	return append(append(out, make([]byte, 16)...), body...)
}

// Requests that the tests make.
const (
	fuseLookup = 1
	fuseOpen   = 14
	fuseRead   = 15
)

func u64(v ...uint64) (b []byte) {
	for _, n := range v {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func (g *shareGuest) lookup(dir uint64, name string) uint64 {
	g.Helper()
	out, errno := g.do(fuseLookup, dir, []byte(name+"\x00"), 144)
	if errno != 0 {
		g.Fatalf("lookup %s: %v", name, errno)
	}
	return binary.LittleEndian.Uint64(out)
}

func (g *shareGuest) open(node uint64, flags uint32) uint64 {
	g.Helper()
	out, errno := g.do(fuseOpen, node, u64(uint64(flags)), 32)
	if errno != 0 {
		g.Fatalf("open: %v", errno)
	}
	return binary.LittleEndian.Uint64(out)
}

// benchFile creates a host file that is in the page cache.
func benchFile(tb testing.TB, dir string, n int) string {
	tb.Helper()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, n), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

// BenchmarkShareRead reads 1 MiB that the host has in its cache, from the guest and
// from a host program.
func BenchmarkShareRead(b *testing.B) {
	const size = 1 << 20
	dir := b.TempDir()
	path := benchFile(b, dir, size)
	b.Run("guest", func(b *testing.B) {
		g := newShareGuest(b, dir, hostdir.Options{})
		defer g.close()
		fh := g.open(g.lookup(1, "file"), unix.O_RDONLY)
		if out, errno := g.do(fuseRead, 2, append(u64(fh, 0, size), make([]byte, 16)...), 16+size); errno != 0 || len(out) != size {
			b.Fatalf("%d bytes, %v", len(out), errno)
		}
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			g.again()
		}
	})
	b.Run("host", func(b *testing.B) {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, size)
		b.SetBytes(size)
		for b.Loop() {
			if n, err := unix.Pread(int(f.Fd()), buf, 0); n != size || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}

// BenchmarkShareRequest measures single requests: the parts of a stat, of an open and
// close, and of creating and removing a file.
func BenchmarkShareRequest(b *testing.B) {
	dir := b.TempDir()
	benchFile(b, dir, 4096)
	for _, bench := range []struct {
		name string
		do   func(g *shareGuest) (again func())
	}{
		{"statfs", func(g *shareGuest) func() { g.do(17, 1, nil, 96); return g.again }},
		{"getattr", func(g *shareGuest) func() { g.do(3, 1, make([]byte, 16), 120); return g.again }},
		{"lookup", func(g *shareGuest) func() { g.lookup(1, "file"); return g.again }},
		{"read 4K", func(g *shareGuest) func() {
			fh := g.open(g.lookup(1, "file"), unix.O_RDONLY)
			g.do(fuseRead, 2, append(u64(fh, 0, 4096), make([]byte, 16)...), 16+4096)
			return g.again
		}},
		{"open, release", func(g *shareGuest) func() {
			node := g.lookup(1, "file")
			return func() { g.do(18, node, u64(g.open(node, unix.O_RDONLY), 0, 0), 16) }
		}},
		{"create, release, forget, unlink", func(g *shareGuest) func() {
			return func() {
				out, errno := g.do(35, 1, append(u64(unix.O_RDWR, 0o22<<32>>32), "new\x00"...), 160)
				if errno != 0 {
					b.Fatal(errno)
				}
				node, fh := binary.LittleEndian.Uint64(out), binary.LittleEndian.Uint64(out[128:])
				g.do(18, node, u64(fh, 0, 0), 16)
				g.chain(g.request(2, node, u64(1)), 0)
				g.wait()
				g.do(10, 1, []byte("new\x00"), 16)
			}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			g := newShareGuest(b, dir, hostdir.Options{})
			defer g.close()
			again := bench.do(g)
			b.ReportAllocs()
			for b.Loop() {
				again()
			}
		})
	}
}
