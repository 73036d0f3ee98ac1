package disk

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNoAllocation(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 1<<20)
	m := open(t, path, Options{})
	b := make([]byte, 16*4096)
	bufs := split(b, func() int { return 4096 })
	for name, f := range map[string]func(){
		"ReadvAt":    func() { m.ReadvAt(bufs, 4096) },
		"TryReadvAt": func() { m.TryReadvAt(bufs, 4096) },
		"WritevAt":   func() { m.WritevAt(bufs, 4096) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkRead reads 4 KiB from the page cache.
func BenchmarkRead(b *testing.B) {
	path, _ := newFile(b, b.TempDir(), 1<<20)
	m := open(b, path, Options{})
	page := make([]byte, 4096)
	one, many := [][]byte{page}, split(make([]byte, 64<<10), func() int { return 4096 })
	for _, bench := range []struct {
		name string
		f    func(off int64) error
	}{
		{"4k", func(off int64) error { return m.ReadvAt(one, off) }},
		{"4k-try", func(off int64) error { _, err := m.TryReadvAt(one, off); return err }},
		{"4k-unix.Preadv", func(off int64) error { _, err := unix.Preadv(m.fd, one, off); return err }},
		{"16x4k", func(off int64) error { return m.ReadvAt(many, off) }},
		{"16x4k-unix.Preadv", func(off int64) error { _, err := unix.Preadv(m.fd, many, off); return err }},
		{"4k-write", func(off int64) error { return m.WritevAt(one, off) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if err := bench.f(i % 200 * 4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
