package roster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A Claim is a name while its guest's process holds it. It ends when the process ends,
// however it does, and when the Claim is no longer referenced: its holder must keep a
// reference.
type Claim struct {
	Entry
	roster    *Roster
	root      *os.Root // the folder
	held, pid *os.File // both locked
	keep      bool
}

// InUseError says that a name is taken.
type InUseError struct {
	Entry   Entry
	Foreign bool // by something that is not a guest's
}

func (e *InUseError) Error() string {
	switch {
	case e.Foreign:
		return fmt.Sprintf("name %q: %s is there, and vmm did not make it; choose another name", e.Entry.Name, e.Entry.Dir)
	case e.Entry.Alive:
		return fmt.Sprintf("name %q: a guest that runs has it; choose another, or end that one with: vmm kill %[1]s", e.Entry.Name)
	}
	return fmt.Sprintf("name %q: a guest that has ended has it; choose another, or remove that one with: vmm rm %[1]s", e.Entry.Name)
}

// Claim takes a name, or returns an *InUseError. With keep the guest stays in the
// roster after its process has ended, until it is removed. The directory must have
// been opened by Create.
func (r *Roster) Claim(name string, keep bool) (*Claim, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	c := &Claim{Entry: Entry{Name: name, Dir: r.path(name), Alive: true}, roster: r, keep: keep}
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(c.Socket()) > most {
		return nil, fmt.Errorf("%s: the path is longer than the %d bytes that a socket's may have; choose a shorter name or --runtime-dir", c.Socket(), most)
	}
	if r.root == nil {
		return nil, fmt.Errorf("runtime directory %s: %w", r.dir, fs.ErrNotExist)
	}
	release, err := r.exclusive()
	if err != nil {
		return nil, err
	}
	defer release()
	switch e, is, err := r.entry(name); {
	case errors.Is(err, errForeign):
		return nil, &InUseError{e, true}
	case err != nil:
		return nil, err
	case is:
		return nil, &InUseError{Entry: e}
	}
	r.sweepAll()
	if _, err := r.root.Lstat(name); err == nil { // it has files that are not ours
		if err := r.sweep(name); err != nil {
			return nil, err
		}
	}
	if err := r.clear(comes); err != nil {
		return nil, err
	}
	if err := c.make(); err != nil {
		c.close()
		r.clear(comes)
		return nil, err
	}
	return c, nil
}

// make makes the folder and takes its locks. Only then does the folder get its name.
func (c *Claim) make() (err error) {
	r := c.roster
	if err := r.root.Mkdir(comes, 0o700); err != nil {
		return err
	}
	if c.root, err = openDir(r.root, comes); err != nil {
		return err
	}
	if c.held, err = c.create(lockFile, mark); err != nil {
		return err
	}
	if c.pid, err = c.create(pidFile, ""); err != nil {
		return err
	}
	if err := errors.Join(lock(c.held), lockProcess(c.pid)); err != nil {
		return err
	}
	if c.Entry.lock, err = c.held.Stat(); err != nil {
		return err
	}
	if c.keep {
		f, err := c.create(keepFile, "")
		if err != nil {
			return err
		}
		f.Close()
	}
	return r.root.Rename(comes, c.Name)
}

// create makes a file in the folder.
func (c *Claim) create(name, text string) (*os.File, error) {
	f, err := c.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// close gives up the locks, and closes what else is open.
func (c *Claim) close() (err error) {
	for _, f := range []*os.File{c.held, c.pid} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if c.root != nil {
		err = errors.Join(err, c.root.Close())
	}
	return err
}

// Root is the guest's folder. The claim owns it and closes it at its end.
func (c *Claim) Root() *os.Root { return c.root }

// SetRecord replaces the guest's record, whole or not at all. On a full disk it
// overwrites the last record, which already has space. Otherwise a guest that ended
// normally would look like a killed one.
func (c *Claim) SetRecord(b []byte) error {
	const next = recordFile + ".new"
	if err := remove(c.root, next); err != nil { // left by another life of this process
		return err
	}
	f, err := c.create(next, string(b))
	if err == nil {
		return errors.Join(f.Close(), c.root.Rename(next, recordFile))
	}
	remove(c.root, next)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	if c.overwrite(b) != nil {
		return err
	}
	return nil
}

// overwrite writes the record over the last one, or leaves the last one as it is.
func (c *Claim) overwrite(b []byte) error {
	was, err := c.Record()
	if err != nil {
		return err
	}
	f, err := openFile(c.root, recordFile, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	if err != nil {
		b = was
		f.WriteAt(b, 0) // its space is already allocated
	}
	return errors.Join(err, f.Truncate(int64(len(b))))
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Abandon gives the name up as if it had never been claimed.
func (c *Claim) Abandon() error {
	c.keep = false
	return errors.Join(remove(c.root, keepFile), c.Release())
}

// Release ends the claim in order.
func (c *Claim) Release() error {
	err := remove(c.root, socketFile)
	if c.keep {
		return errors.Join(err, c.close())
	}
	release, lockErr := c.roster.exclusive()
	if lockErr == nil {
		defer release()
		lockErr = c.roster.sweep(c.Name)
	}
	return errors.Join(err, lockErr, c.close())
}
