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
