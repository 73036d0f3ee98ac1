package boot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vmm/hostfile"
)

// A Cache keeps unpacked kernels in a directory, so that the next start of the same
// kernel does not even read the kernel file. Several processes may use it at once. The
// directory holds
//
//	<sha256 of the payload>-<its size>.image    an unpacked kernel, see header
//	<device>-<inode>-<size>-<mtime>-<ctime>.key  a symbolic link to one: the index
//	<random>.tmp                                either of these, not yet complete
//
// Everything is written to a .tmp file and then renamed; it never changes after that.
// An image may be unlinked while a guest has it mapped, but is never truncated. Its
// mtime is the time of its last use. A broken cache costs only time: Load logs the
// reason.
type Cache struct {
	Dir   string        // see CacheDir; created if missing
	Limit int64         // total bytes of all images; 0 means DefaultCacheLimit
	Copy  bool          // read an image into memory instead of mapping it
	Held  *hostfile.Set // holds the directory by path; nil resolves the path now
}

// DefaultCacheLimit has room for about ten distribution kernels.
const DefaultCacheLimit = 512 << 20

const (
	maxKeys   = 256         // links in the index, each one file of the user
	staleTemp = time.Hour   // a .tmp older than this has lost its writer
	settled   = time.Second // minimum age of a file for its key to be trusted
)

// CacheDir returns the directory in which a user's kernels are cached:
// $XDG_CACHE_HOME/vmm/kernels.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kernel cache: %w", err)
	}
	return filepath.Join(dir, "vmm", "kernels"), nil
}

// A store is the open directory of a Cache. A nil store is empty and keeps nothing.
type store struct {
	*Cache
	root *os.Root
}

// open opens the directory, which must belong to the user and be closed to others:
// anyone who can write there decides what guests run.
func (c *Cache) open() (*store, error) {
	root, err := c.Held.OpenRoot(c.Dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil {
		if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
			err = fmt.Errorf("%s: belongs to user %d: remove it or name another directory", c.Dir, uid)
		} else if info.Mode().Perm()&0o077 != 0 {
			err = fmt.Errorf("%s: others have access (mode %#o): chmod 700 it", c.Dir, info.Mode().Perm())
		}
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return &store{c, root}, nil
}

// openStore returns the loader's cache, or nil if no cache works.
func (l *loader) openStore() *store {
	if l.Cache == nil {
		return nil
	}
	s, err := l.Cache.open()
	if err != nil {
		l.Log.Warn("kernel cache not used", "why", err)
	}
	return s
}

// key identifies the state of a file: while the key is the same, so is the content.
func (f *file) key() string {
	st := f.info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%x-%x-%x-%x-%x.key", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// settled reports whether the file was last changed well before it was opened. A file
// changed twice within one clock tick would have the same key for two contents.
func (f *file) settled() bool {
	st := f.info.Sys().(*syscall.Stat_t)
	return f.opened.Sub(time.Unix(0, max(st.Mtim.Nano(), st.Ctim.Nano()))) > settled
}

// imageName names the image of a payload.
func imageName(payload []byte) string {
	return fmt.Sprintf("%x%s", sha256.Sum256(payload), imageSuffix(len(payload)))
}

func imageSuffix(payloadSize int) string { return fmt.Sprintf("-%d.image", payloadSize) }

// find returns the image that name (of a key or an image) leads to, and the image's
// own name; or nil. It removes a damaged image. The caller closes the image.
func (s *store) find(name string) (*image, string) {
	if s == nil {
		return nil, ""
	}
	if target, err := s.root.Readlink(name); err == nil {
		name = target
	}
	f, err := s.root.Open(name)
	if err != nil {
		return nil, ""
	}
	img, err := readEntry(f)
	if err != nil {
		if info, err := s.root.Lstat(name); err == nil {
			s.remove(info, imageNames)
		}
		f.Close()
		return nil, ""
	}
	if s.Copy {
		img.immortal = nil
	}
	return img, name
}

// findPayload returns the image of a payload unpacked before, perhaps from another
// file. It computes the digest only if an image of this payload size exists.
func (s *store) findPayload(payload []byte) (*image, string) {
	if s == nil || !s.hasSuffix(imageSuffix(len(payload))) {
		return nil, ""
	}
	return s.find(imageName(payload))
}

func (s *store) hasSuffix(suffix string) bool {
	for _, e := range s.list() {
		if strings.HasSuffix(e.Name(), suffix) {
			return true
		}
	}
	return false
}

func (s *store) list() []fs.DirEntry {
	entries, _ := fs.ReadDir(s.root.FS(), ".")
	return entries
}

// add writes an image under its name.
func (s *store) add(name string, e *entry) error {
	if size := int64(e.header.Size); size > s.limit() {
		return fmt.Errorf("%d bytes are more than its limit of %d", size, s.limit())
	}
	tmp := tempName()
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	if err = e.write(f); err == nil {
		err = f.Sync() // after a host crash, a name must not exist without its data
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		s.root.Remove(tmp)
	}
	return err
}

// use records that the image was used now, links key, if any, to it, and evicts excess
// images.
func (s *store) use(name, key string) error {
	now := time.Now()
	err := s.root.Chtimes(name, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // evicted by another process
	}
	if target, _ := s.root.Readlink(key); key != "" && target != name {
		err = errors.Join(err, s.link(key, name))
	}
	s.evict()
	if err != nil {
		return fmt.Errorf("kernel cache: %w", err)
	}
	return nil
}

func (s *store) link(key, name string) error {
	tmp := tempName()
	if err := s.root.Symlink(name, tmp); err != nil {
		return err
	}
	return s.root.Rename(tmp, key)
}

func (s *store) close() {
	if s != nil {
		s.root.Close()
	}
}
