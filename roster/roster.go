// Package roster knows the guests of this host by name: it keeps a runtime directory
// with a folder for each. There is no daemon. A process that runs a guest claims the
// guest's name, and holds a lock for as long as the process lives, however it ends. So
// any process can tell the folder of a killed process from that of a living guest.
package roster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// maxName is the limit of a DNS label, because names become host names.
const maxName = 63

// CheckName says what is wrong with a guest's name: it names a folder, and is a word in
// command lines and logs.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %.70q: must have 1 to %d characters", name, maxName)
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return fmt.Errorf("name %q: must be letters, digits and, behind the first, . _ and -", name)
		}
	}
	return nil
}

// An Entry is one guest of the roster.
type Entry struct {
	Name  string
	Dir   string // its folder
	Alive bool   // its process is alive

	lock fs.FileInfo // that process's, or the last one's
}

// Socket is the path of the guest's API socket.
func (e Entry) Socket() string { return e.Path(socketFile) }

// Path returns the path of a file in the guest's folder.
func (e Entry) Path(name string) string { return filepath.Join(e.Dir, name) }

// maxRecord bounds how much of a guest's record is read.
const maxRecord = 1 << 20

// Record returns what the guest's process last recorded about it.
func (e Entry) Record() ([]byte, error) {
	f, err := e.Open(recordFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(b) > maxRecord {
		err = &fs.PathError{Op: "read", Path: e.Path(recordFile), Err: unix.EFBIG}
	}
	return b, err
}

// Open opens a file in the guest's folder for reading.
func (e Entry) Open(name string) (*os.File, error) {
	root, lock, err := e.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	defer lock.Close()
	return openFile(root, name, os.O_RDONLY)
}

// Alive checks again whether the guest's process is alive.
func Alive(e Entry) bool {
	root, lock, err := e.open()
	if err != nil { // a host that refuses the check has not ended the guest
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errForeign)
	}
	defer root.Close()
	defer lock.Close()
	return held(lock)
}

// open opens the guest's folder and its lock. It fails if the folder has been replaced,
// for example because another process has taken the name.
func (e Entry) open() (root *os.Root, lock *os.File, err error) {
	above, err := os.OpenRoot(filepath.Dir(e.Dir))
	if err != nil {
		return nil, nil, err
	}
	defer above.Close()
	if root, lock, err = openFolder(above, filepath.Base(e.Dir)); err != nil {
		return nil, nil, err
	}
	if info, err := lock.Stat(); err != nil || e.lock != nil && !same(info, e.lock) {
		root.Close()
		lock.Close()
		return nil, nil, fs.ErrNotExist
	}
	return root, lock, nil
}

// same reports whether a and b describe the same file, not a later one with the same
// inode number.
func same(a, b fs.FileInfo) bool { return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) }

// NotFoundError says that no guest has the name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no guest is called %q; see 'vmm ps -a'", e.Name)
}

// Find returns the guest with that name.
func (r *Roster) Find(name string) (Entry, error) {
	if err := CheckName(name); err != nil {
		return Entry{}, err
	}
	e, is, err := r.entry(name)
	if err != nil && !errors.Is(err, errForeign) {
		return Entry{}, err
	}
	if !is {
		return Entry{}, &NotFoundError{name}
	}
	return e, nil
}

// List returns all guests, sorted by name. It changes nothing: a folder without a guest
// is swept by the next process that claims a name.
func (r *Roster) List() ([]Entry, error) {
	var all []Entry
	err := r.folders(func(e Entry, is bool) error {
		if is {
			all = append(all, e)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}

// folders calls f for each folder that belongs, or belonged, to a guest.
func (r *Roster) folders(f func(e Entry, is bool) error) error {
	if r.root == nil {
		return nil
	}
	files, err := readDir(r.root)
	if err != nil {
		return err
	}
	for _, file := range files {
		if !file.IsDir() || CheckName(file.Name()) != nil {
			continue
		}
		e, is, err := r.entry(file.Name())
		if err == nil {
			err = f(e, is)
		}
		if err != nil && !errors.Is(err, errForeign) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// entry examines a folder. A folder without a living process that is not to be kept is
// not a guest. An error that is errForeign says that the folder is not ours.
func (r *Roster) entry(name string) (e Entry, is bool, err error) {
	e = Entry{Name: name, Dir: r.path(name)}
	if r.root == nil {
		return e, false, nil
	}
	root, lock, err := openFolder(r.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	} else if err != nil {
		return e, false, err
	}
	defer root.Close()
	defer lock.Close()
	if e.lock, err = lock.Stat(); err != nil {
		return e, false, err
	}
	if e.Alive = held(lock); e.Alive {
		return e, true, nil
	}
	_, err = root.Lstat(keepFile)
	return e, err == nil, nil
}

// Remove removes a guest that has ended, and its folder.
func (r *Roster) Remove(name string) error {
	e, err := r.Find(name) // before the lock: reading creates none
	if err != nil {
		return err
	}
	release, err := r.exclusive()
	if err != nil {
		return err
	}
	defer release()
	if e, err = r.Find(name); err != nil {
		return err
	}
	if e.Alive {
		return fmt.Errorf("guest %s runs; end it first, or use: vmm rm --force %[1]s", name)
	}
	if err := r.sweep(name); err != nil {
		return err
	}
	r.sweepAll()
	return nil
}

// sweepAll removes the folders of killed processes that were not to be kept. What cannot
// be removed stays. r's lock is held.
func (r *Roster) sweepAll() {
	r.folders(func(e Entry, is bool) error {
		if !is {
			r.sweep(e.Name)
		}
		return nil
	})
}
