package machine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmm/devices/virtio/fs"
	"vmm/hostdir"
	"vmm/hostfile"
)

// Share is a host directory that the guest mounts as a virtio file system.
type Share struct {
	Dir      string // on the host
	ReadOnly bool   `json:",omitempty"`
	Tag      string `json:",omitempty"` // the guest mounts it by this; "" is share0 and so on
	// Mount is where the kernel's command line asks the guest to mount it; ""
	// leaves that to the guest.
	Mount string `json:",omitempty"`

	// Files of the user who runs this program belong to UID and GID in the guest,
	// unless another owner was set (docs/fs.md, "Owners"). With HostOwner no other
	// owner can be set.
	UID, GID  uint32 `json:",omitempty"`
	HostOwner bool   `json:",omitempty"`

	BytesPerSecond uint64 `json:",omitempty"` // read and written together; 0 is no limit
	// Size is how many bytes the guest may add; 0 is no limit. Quota counts them
	// if the count must continue in a later machine; nil starts a new count.
	Size  uint64 `json:",omitempty"`
	Quota *Quota `json:"-"`
}

// Quota counts what a guest has added to a share.
type Quota = hostdir.Quota

// NewQuota returns a Quota of size bytes.
func NewQuota(size uint64) *Quota { return hostdir.NewQuota(int64(min(size, math.MaxInt64))) }

// minSize is the smallest size of a share: room for some files.
const minSize = 64 << 10

// MaxShares bounds a Config.
const MaxShares = 16

// maxMount bounds a mount path on the kernel's command line, which has 2047 bytes in
// all.
const maxMount = 256

func (s *Share) validate() error {
	tag := s.Tag
	switch {
	case s.Dir == "":
		return errors.New("no directory")
	case len(tag) > fs.MaxTag || strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }):
		return fmt.Errorf("%s: tag %q; it has up to %d printable characters of ASCII but : and blanks", s.Dir, tag, fs.MaxTag)
	case s.UID == math.MaxUint32 || s.GID == math.MaxUint32:
		return fmt.Errorf("%s: nobody in a guest has the number %d", s.Dir, uint32(math.MaxUint32))
	case s.Size > 0 && s.Size < minSize:
		return fmt.Errorf("%s: a size of %d bytes; it has at least %d KiB", s.Dir, s.Size, minSize>>10)
	case s.Mount == "":
	case s.Mount[0] != '/' || path.Clean(s.Mount) == "/":
		return fmt.Errorf("%s: the guest cannot mount it at %q; give it a directory, such as /mnt", s.Dir, s.Mount)
	case len(s.Mount) > maxMount || strings.IndexByte(s.Mount, 0) >= 0:
		return fmt.Errorf("%s: the guest's path is longer than %d bytes", s.Dir, maxMount)
	}
	return nil
}

// validateShares checks each share of a Config and the shares together.
func (c *Config) validateShares() error {
	if len(c.Shares) > MaxShares {
		return &ConfigError{"Shares", fmt.Sprintf("%d; at most %d", len(c.Shares), MaxShares)}
	}
	tags, mounts := map[string]bool{}, map[string]bool{}
	for i := range c.Shares {
		s := &c.Shares[i]
		if err := s.validate(); err != nil {
			return &ConfigError{"Shares", err.Error()}
		}
		tag, at := s.tag(i), path.Clean(s.Mount)
		if tags[tag] || s.Mount != "" && mounts[at] {
			return &ConfigError{"Shares", fmt.Sprintf("%s: there is another with tag %s or at %s", s.Dir, tag, s.Mount)}
		}
		tags[tag], mounts[at] = true, true
	}
	return nil
}

// tag returns the tag of the i-th share.
func (s *Share) tag(i int) string {
	if s.Tag != "" {
		return s.Tag
	}
	return fmt.Sprintf("share%d", i)
}

// shareWords returns the words on the kernel's command line for the guest's init
// (docs/fs.md): vmm.share=TAG:PATH or vmm.share=TAG:PATH:ro. Deeper paths come later:
// a mount above them would hide them.
func (c *Config) shareWords() (words []string) {
	order := make([]int, len(c.Shares))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(depth(c.Shares[i].Mount), depth(c.Shares[j].Mount)) })
	for _, i := range order {
		s := &c.Shares[i]
		if s.Mount == "" {
			continue
		}
		word := "vmm.share=" + s.tag(i) + ":" + escape(path.Clean(s.Mount))
		if s.ReadOnly {
			word += ":ro"
		}
		words = append(words, word)
	}
	return words
}

// depth is the number of directories in a path.
func depth(mount string) int { return strings.Count(path.Clean(mount), "/") }

// mountable checks that a share mounted inside a read-only share has a directory
// there: the guest cannot create it.
func (c *Config) mountable(held *hostfile.Set) error {
	for i := range c.Shares {
		inner := &c.Shares[i]
		outer, below := c.outer(inner)
		if outer == nil || !outer.ReadOnly {
			continue
		}
		if !hasDir(held, outer.Dir, below) {
			return fmt.Errorf("share %s: %s is inside %s, which is read-only and has no such directory; create it with: mkdir -p %s", inner.Dir, inner.Mount, outer.Mount, filepath.Join(outer.Dir, below))
		}
	}
	return nil
}

func hasDir(held *hostfile.Set, dir, below string) bool {
	root, err := held.OpenDir(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	st, err := root.Stat(below)
	return err == nil && st.IsDir()
}

// outer returns the share inside which inner is mounted and the path below it, or nil.
func (c *Config) outer(inner *Share) (outer *Share, below string) {
	at := path.Clean(inner.Mount)
	for i := range c.Shares {
		s := &c.Shares[i]
		if s.Mount == "" || inner.Mount == "" || outer != nil && depth(s.Mount) <= depth(outer.Mount) {
			continue
		}
		if rest, ok := strings.CutPrefix(at, path.Clean(s.Mount)+"/"); ok {
			outer, below = s, rest
		}
	}
	return outer, below
}

// escape writes a path with %XX for bytes that have a meaning in the word, on the
// command line, or to a terminal.
func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/._-+@,~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// maxShareQueues bounds the queues of a share; a guest uses one per vCPU.
const maxShareQueues = 8

// openShares creates a device for each share of the Config.
func (m *Machine) openShares() error {
	shares := m.config.Shares
	if err := m.config.mountable(m.files.set); err != nil {
		return &ShareError{err}
	}
	for i := range shares {
		s := &shares[i]
		o := s.options()
		p := m.newPart("share %s", s.Dir)
		o.Files, o.Tasks, o.Held = m.take(p, m.budget.share), m.panicked, m.files.set
		dir, err := hostdir.Open(s.Dir, o)
		if err != nil {
			return &ShareError{err}
		}
		p.opened(dir.Close)
		m.devices.shares = append(m.devices.shares, dir)
		d, err := fs.New(dir, fs.Config{Tag: s.tag(i), Queues: min(m.config.CPUs, maxShareQueues), Owner: m.panicked, Log: m.log.With("share", s.Dir)})
		if err != nil {
			return err
		}
		if err := m.addVirtio(p, d, classOther); err != nil {
			return err
		}
	}
	return nil
}

// options returns the share's options for its directory.
func (s *Share) options() hostdir.Options {
	o := hostdir.Options{
		ReadOnly: s.ReadOnly, HostOwner: s.HostOwner, Owner: fuse.Owner{Uid: s.UID, Gid: s.GID}, Rate: s.BytesPerSecond, Quota: s.Quota,
	}
	if o.Quota == nil && s.Size > 0 {
		o.Quota = NewQuota(s.Size)
	}
	return o
}

// Openat2 reports whether shares look names up in one step.
func Openat2() bool { return hostdir.Openat2() }

// ShareError says that a directory of the Config cannot be shared. The user must fix
// it.
type ShareError struct{ Err error }

func (e *ShareError) Error() string { return e.Err.Error() }
func (e *ShareError) Unwrap() error { return e.Err }
