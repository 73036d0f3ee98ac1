package boot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmm/boot"
	"vmm/mem"
)

// kernels returns the real kernels in the directory $VMM_KERNELS.
func kernels(tb testing.TB) []string {
	tb.Helper()
	dir := os.Getenv("VMM_KERNELS")
	if dir == "" {
		tb.Skip("VMM_KERNELS is not set: no directory of real kernels to load")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no kernels in %s: %v", dir, err)
	}
	return files
}

func TestRealKernels(t *testing.T) {
	for _, path := range kernels(t) {
		for _, mode := range []boot.Mode{boot.Auto, boot.BzImage, boot.PVH} {
			t.Run(filepath.Base(path)+"/"+mode.String(), func(t *testing.T) {
				m, err := mem.Map(mem.Range{Base: 0, Size: 256 << 20})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				e, err := boot.Load(m, boot.Params{Kernel: path, Mode: mode, Cmdline: "console=ttyS0"})
				if mode == boot.PVH && err != nil && strings.Contains(err.Error(), "no PVH entry") {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", e)
				if err := e.Finish(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// BenchmarkLoad measures Load with fresh guest memory: cold, and warm with both ways
// of using the cache.
func BenchmarkLoad(b *testing.B) {
	for _, path := range kernels(b) {
		for _, how := range []string{"cold", "warm-map", "warm-copy", "bzimage"} {
			b.Run(filepath.Base(path)+"/"+how, func(b *testing.B) { benchmarkLoad(b, path, how) })
		}
	}
}

func benchmarkLoad(b *testing.B, path, how string) {
	p := boot.Params{Kernel: path, Cmdline: "console=ttyS0"}
	switch how {
	case "bzimage":
		p.Mode = boot.BzImage
	case "warm-map", "warm-copy":
		p.Cache = &boot.Cache{Dir: filepath.Join(b.TempDir(), "kernels"), Copy: how == "warm-copy"}
		load(b, p, func(*boot.Entry) {}, func() {})
	}
	for b.Loop() {
		b.StopTimer()
		load(b, p, func(e *boot.Entry) {
			if p.Cache != nil && !e.Cached {
				b.Fatal("not from the cache")
			}
		}, b.StartTimer)
	}
}

// BenchmarkFinish measures how long the cache works while the guest runs.
func BenchmarkFinish(b *testing.B) {
	for _, path := range kernels(b) {
		b.Run(filepath.Base(path), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				c := &boot.Cache{Dir: filepath.Join(b.TempDir(), "kernels")}
				m, err := mem.Map(mem.Range{Base: 0, Size: 256 << 20})
				if err != nil {
					b.Fatal(err)
				}
				e, err := boot.Load(m, boot.Params{Kernel: path, Cache: c})
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := e.Finish(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				m.Close()
				os.RemoveAll(c.Dir)
				b.StartTimer()
			}
		})
	}
}

// load runs Load on fresh memory, and calls start just before.
func load(tb testing.TB, p boot.Params, check func(*boot.Entry), start func()) {
	m, err := mem.Map(mem.Range{Base: 0, Size: 256 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	defer m.Close()
	start()
	e, err := boot.Load(m, p)
	if b, ok := tb.(*testing.B); ok {
		b.StopTimer()
		defer b.StartTimer()
	}
	if err != nil {
		tb.Fatal(err)
	}
	check(e)
	if err := e.Finish(); err != nil {
		tb.Fatal(err)
	}
}
