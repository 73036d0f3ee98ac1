package roster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Claim is a name while its guest's process has it. It ends with the process,
// whatever becomes of that, and when nobody refers to it any more: its holder
// keeps it.
type Claim struct {
	Entry
	roster *Roster
	lock   *os.File
	keep   bool
}

// Claim takes a name, or returns an *InUseError. With keep the guest stays in the
// roster when its process has ended, until it is removed.
func (r *Roster) Claim(name string, keep bool) (*Claim, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	c := &Claim{Entry{name, filepath.Join(r.dir, name), true}, r, nil, keep}
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(c.Socket()) > most {
		return nil, fmt.Errorf("%s: the path is longer than the %d bytes that a socket's may have; choose a shorter name or --runtime-dir", c.Socket(), most)
	}
	defer r.exclusive()()
	if e, ok := r.entry(name); ok {
		return nil, &InUseError{e}
	}
	if err := errors.Join(os.RemoveAll(c.Dir), os.Mkdir(c.Dir, 0o700)); err != nil {
		return nil, err
	}
	var err error
	if c.lock, err = os.OpenFile(c.Path(lockFile), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = lock(c.lock, false)
	}
	if err == nil && keep {
		err = os.WriteFile(c.Path(keepFile), nil, 0o600)
	}
	if err != nil {
		os.RemoveAll(c.Dir)
		return nil, err
	}
	return c, nil
}

// SetRecord replaces the guest's record, whole or not at all.
func (c *Claim) SetRecord(b []byte) error {
	next := c.Path(recordFile + ".new")
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.Path(recordFile))
}

// Abandon gives the name up as if it had never been claimed.
func (c *Claim) Abandon() error {
	c.keep = false
	return c.Release()
}

// Release ends the claim in order.
func (c *Claim) Release() error {
	defer c.roster.exclusive()()
	err := os.Remove(c.Socket())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if !c.keep {
		err = os.RemoveAll(c.Dir)
	}
	return errors.Join(err, c.lock.Close())
}
