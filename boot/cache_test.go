package boot

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmm/mem"
	"vmm/test/allow"
)

// oldKernel is a bzImage that existed before the test: the index trusts no file
// that has just been written.
func oldKernel(t *testing.T) string {
	path := filepath.Join("testdata", "vmlinuz")
	for deadline := time.Now().Add(allow.Time(10 * time.Second)); time.Now().Before(deadline); time.Sleep(settled / 10) {
		f, err := openFile(nil, "kernel", path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if f.settled() {
			return path
		}
	}
	t.Fatal(path + " has a time in the future")
	return ""
}

// newKernel returns the path of a kernel with a unique payload.
func newKernel(t *testing.T, id int) string {
	k := newELF()
	k.bodies[1] = fmt.Appendf(data(), "%d", id)
	return writeFile(t, fmt.Sprint("vmlinuz", id), bzImage(gzipped(t, k.bytes())))
}

func newCache(t *testing.T) *Cache { return &Cache{Dir: filepath.Join(t.TempDir(), "kernels")} }

// boots loads a kernel and reports whether it came from the cache.
func boots(t *testing.T, c *Cache, kernel string) bool {
	t.Helper()
	m := ram(t, 32)
	e, err := Load(m, Params{Kernel: kernel, Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != Direct || e.IP != textAddr {
		t.Errorf("entry %+v", e)
	}
	if !bytes.Equal(at(t, m, textAddr, len(text())), text()) || !bytes.Equal(at(t, m, dataAddr, dataSize), data()) {
		t.Error("the segments are not in place")
	}
	if err := e.Finish(); err != nil {
		t.Error(err)
	}
	return e.Cached
}

// in lists the cache files with the suffix.
func (c *Cache) in(t *testing.T, suffix string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.Dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (c *Cache) count(t *testing.T, images, keys int) {
	t.Helper()
	if i, k, tmp := len(c.in(t, ".image")), len(c.in(t, ".key")), len(c.in(t, ".tmp")); i != images || k != keys || tmp != 0 {
		t.Errorf("cache has %d images, %d keys, %d temporary files; want %d, %d, none", i, k, tmp, images, keys)
	}
}

func TestCache(t *testing.T) {
	c, kernel := newCache(t), oldKernel(t)
	if boots(t, c, kernel) {
		t.Error("hit in an empty cache")
	}
	c.count(t, 1, 1)
	if !boots(t, c, kernel) {
		t.Error("miss by key")
	}
	c.Copy = true
	if !boots(t, c, kernel) {
		t.Error("miss by key, copied")
	}
	c.Copy = false
	b, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	if !boots(t, c, writeFile(t, "same", b)) {
		t.Error("miss by digest")
	}
	c.count(t, 1, 1) // so new a file gets no key
	if boots(t, c, newKernel(t, 1)) {
		t.Error("hit with another kernel")
	}
	c.count(t, 2, 1)
}

// TestCacheKey points the key to an image with another name, which can only be found
// without computing the digest.
func TestCacheKey(t *testing.T) {
	c, kernel := newCache(t), oldKernel(t)
	boots(t, c, kernel)
	key := c.in(t, ".key")[0]
	if err := os.Rename(c.in(t, ".image")[0], filepath.Join(c.Dir, "other.image")); err != nil {
		t.Fatal(err)
	}
	os.Remove(key)
	if err := os.Symlink("other.image", key); err != nil {
		t.Fatal(err)
	}
	if !boots(t, c, kernel) {
		t.Error("the key was not used")
	}
}

// TestCacheDamage damages the cache in every way that must be detected, and expects a
// rebuild.
func TestCacheDamage(t *testing.T) {
	kernel := oldKernel(t)
	for name, damage := range map[string]func(image string, b []byte) error{
		"truncated": func(image string, b []byte) error { return os.WriteFile(image, b[:len(b)-1], 0o600) },
		"longer":    func(image string, b []byte) error { return os.WriteFile(image, append(b, 0), 0o600) },
		"header":    func(image string, b []byte) error { return os.WriteFile(image, flip(b, 20), 0o600) },
		"empty":     func(image string, b []byte) error { return os.WriteFile(image, nil, 0o600) },
		"gone":      func(image string, b []byte) error { return nil },
		"a link out of it": func(image string, b []byte) error {
			outside := filepath.Join(filepath.Dir(image), "..", "outside")
			if err := os.WriteFile(outside, b, 0o600); err != nil {
				return err
			}
			return os.Symlink("../outside", image)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCache(t)
			boots(t, c, kernel)
			image := c.in(t, ".image")[0]
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(image)
			if err := damage(image, b); err != nil {
				t.Fatal(err)
			}
			if boots(t, c, kernel) {
				t.Error("damage not noticed")
			}
			if !boots(t, c, kernel) {
				t.Error("not rebuilt")
			}
		})
	}
}

// TestCacheEvict has room for two kernels.
func TestCacheEvict(t *testing.T) {
	c := newCache(t)
	boots(t, c, newKernel(t, 0))
	info, err := os.Stat(c.in(t, ".image")[0])
	if err != nil {
		t.Fatal(err)
	}
	c.Limit = 2*info.Size() + info.Size()/2
	one, two, three := newKernel(t, 1), newKernel(t, 2), newKernel(t, 3)
	boots(t, c, one)
	boots(t, c, two)
	c.count(t, 2, 0)
	if !boots(t, c, one) { // makes two the older one
		t.Error("evicted although used last but one")
	}
	boots(t, c, three)
	if !boots(t, c, one) || boots(t, c, two) {
		t.Error("not the least recently used was evicted")
	}
	c.Limit = info.Size() - 1
	e, err := Load(ram(t, 32), Params{Kernel: newKernel(t, 4), Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Finish(); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("Finish with a kernel above the limit: %v", err)
	}
}

// TestCacheTidy: files left by dead processes and dead kernels are removed.
func TestCacheTidy(t *testing.T) {
	c := newCache(t)
	boots(t, c, newKernel(t, 1))
	young := tempName()
	for name, age := range map[string]time.Duration{tempName(): 2 * staleTemp, young: 0} {
		path := filepath.Join(c.Dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		os.Chtimes(path, then, then)
	}
	for i := range maxKeys + 10 {
		target := filepath.Base(c.in(t, ".image")[0])
		if i == 0 {
			target = strings.Repeat("0", 64) + "-1.image"
		}
		if err := os.Symlink(target, filepath.Join(c.Dir, fmt.Sprintf("%x-1-2-3-4.key", i))); err != nil {
			t.Fatal(err)
		}
	}
	boots(t, c, newKernel(t, 1))
	if tmp := c.in(t, ".tmp"); len(tmp) != 1 || filepath.Base(tmp[0]) != young {
		t.Errorf("left: %v", tmp)
	}
	if n := len(c.in(t, ".key")); n > maxKeys || n < maxKeys-1 {
		t.Errorf("%d keys left", n)
	}
}

// TestCacheForeign: foreign files in the directory stay, even with a similar name, and
// even if they are old, large or dangling links.
func TestCacheForeign(t *testing.T) {
	c := newCache(t)
	boots(t, c, newKernel(t, 1))
	at := func(name string) string { return filepath.Join(c.Dir, name) }
	long := time.Now().Add(-1000 * staleTemp)
	theirs := []string{"letter.tmp", "backup.image", "server.key", "1-disk.image", rand.Text() + ".TMP", strings.Repeat("A", 26) + ".tmp.txt", "photo.jpg"}
	for _, name := range theirs {
		err := os.WriteFile(at(name), make([]byte, 1<<20), 0o600)
		if err = errors.Join(err, os.Chtimes(at(name), long, long)); err != nil {
			t.Fatal(err)
		}
	}
	image := strings.Repeat("a", 64) + "-1.image"
	err := errors.Join(os.Symlink("nowhere", at("soft.key")), os.Symlink("photo.jpg", at("soft.image")), os.Mkdir(at(strings.Repeat("B", 26)+".tmp"), 0o700),
		os.Link(at("photo.jpg"), at(image)), os.Chtimes(at(strings.Repeat("B", 26)+".tmp"), long, long))
	if err != nil {
		t.Fatal(err)
	}
	theirs = append(theirs, "soft.key", "soft.image", strings.Repeat("B", 26)+".tmp", image)
	c.Limit = 300 << 10
	boots(t, c, newKernel(t, 2))
	for _, name := range theirs {
		if _, err := os.Lstat(at(name)); err != nil {
			t.Error(err)
		}
	}
	key := c.in(t, "soft.image")[0] // a link to a file that is not an image
	s, err := c.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if img, _ := s.find(filepath.Base(key)); img != nil {
		t.Error("a photo is a kernel")
	}
	if _, err := os.Lstat(at("photo.jpg")); err != nil {
		t.Error(err)
	}
}

// TestCacheEvicted evicts an image that a guest has mapped.
func TestCacheEvicted(t *testing.T) {
	c, kernel := newCache(t), newKernel(t, 1)
	boots(t, c, kernel)
	m := ram(t, 32)
	e, err := Load(m, Params{Kernel: kernel, Cache: c})
	if err != nil || !e.Cached {
		t.Fatal(err)
	}
	at(t, m, textAddr, 1)[0]++ // the guest writes
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	if err := e.Finish(); err != nil {
		t.Error(err) // the image is gone, as if another process had evicted it
	}
	if got := at(t, m, textAddr, len(text())); !bytes.Equal(got[1:], text()[1:]) || got[0] != text()[0]+1 {
		t.Error("the guest lost its kernel")
	}
}

// TestCacheFailed makes Load fail after the kernel was unpacked.
func TestCacheFailed(t *testing.T) {
	c, kernel := newCache(t), newKernel(t, 1)
	big := writeFile(t, "initrd", make([]byte, 32<<20))
	for range 2 {
		if _, err := Load(ram(t, 32), Params{Kernel: kernel, Initrds: []string{big}, Cache: c}); err == nil {
			t.Error("no error")
		}
		c.count(t, 0, 0)
	}
}

// TestCachePrivate gives others access to the directory, which must then not be used.
func TestCachePrivate(t *testing.T) {
	c, kernel := newCache(t), newKernel(t, 1)
	boots(t, c, kernel)
	if info, err := os.Stat(c.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e, err := Load(ram(t, 32), Params{Kernel: kernel, Cache: c, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil || e.Cached {
		t.Errorf("%+v, %v", e, err)
	}
	if !strings.Contains(log.String(), "chmod 700") {
		t.Errorf("log: %s", &log)
	}
	if err := e.Finish(); err != nil {
		t.Error(err)
	}
	if os.Geteuid() == 0 {
		os.Chmod(c.Dir, 0o700)
		os.Chown(c.Dir, 12345, -1)
		if boots(t, c, kernel) {
			t.Error("took what belongs to another user")
		}
	}
}

// TestCacheParallel starts two kernels many times at once, with room for one.
func TestCacheParallel(t *testing.T) {
	c, kernel, other := newCache(t), oldKernel(t), newKernel(t, 1)
	c.Limit = 60 << 10
	var wg sync.WaitGroup
	for i := range 16 {
		m := ram(t, 32)
		wg.Go(func() {
			e, err := Load(m, Params{Kernel: []string{kernel, other}[i%2], Cache: c})
			if err != nil {
				t.Error(err)
				return
			}
			if !bytes.Equal(at(t, m, dataAddr, dataSize), data()) {
				t.Error("the segments are not in place")
			}
			e.Finish() // another start may just have evicted the image
		})
	}
	wg.Wait()
	//lint:ignore SA4000 the first may find what another had begun
	if !boots(t, c, kernel) && !boots(t, c, kernel) {
		t.Error("the cache does not work any more")
	}
}

// TestSplit: long runs of zeros are left out, and nothing else.
func TestSplit(t *testing.T) {
	const page, gap = mem.PageSize, zeroRun
	mark := func(n int, at ...int) []byte {
		b := make([]byte, n)
		for _, i := range at {
			b[i] = 1
		}
		return b
	}
	for name, test := range map[string]struct {
		data []byte
		addr uint64
		bss  uint64
		want []segment // addresses and offsets relative to addr
	}{
		"short gap":      {mark(gap+page, 0, gap), 0x1000, 7, []segment{{0, 0, gap + page, gap + page + 7}}},
		"gap":            {mark(gap+2*page+5, 0, gap+page), 0x1000, 7, []segment{{0, 0, page, gap + page}, {gap + page, gap + page, page + 5, page + 12}}},
		"zeros first":    {mark(gap+1, gap), 0x1000, 0, []segment{{0, 0, 0, gap}, {gap, gap, 1, 1}}},
		"zeros last":     {mark(gap+page+5, 3), 0x1000, 9, []segment{{0, 0, page, gap + page + 14}}},
		"zeros":          {make([]byte, gap), 0x1000, 0, []segment{{0, 0, 0, gap}}},
		"no data":        {nil, 0x1000, 9, []segment{{0, 0, 0, 9}}},
		"not on a page":  {mark(2*gap, 1), 0x1001, 0, []segment{{0, 0, 2 * gap, 2 * gap}}},
		"few zeros last": {mark(page+5, 3), 0x1000, 9, []segment{{0, 0, page + 5, page + 14}}},
	} {
		got := segment{test.addr, 0, uint64(len(test.data)), uint64(len(test.data)) + test.bss}.split(test.data)
		for i := range got {
			got[i].Addr -= test.addr
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
