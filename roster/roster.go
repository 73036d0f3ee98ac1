// Package roster is where the guests of this host are known by their names: a
// runtime directory with a folder for each. There is no daemon behind it. Who
// runs a guest claims its name, and holds a lock for as long as the process
// lives, however it ends; so a killed process leaves a folder that everybody can
// tell from a living guest's.
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

// maxName is a DNS label's, because names become host names.
const maxName = 63

// CheckName says what is wrong with the name of a guest: it is a folder's, and
// a word of command lines and logs.
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
	Alive bool   // its process lives

	lock fs.FileInfo // of that process, or the last one
}

// Socket is the path of its API.
func (e Entry) Socket() string { return e.Path(socketFile) }

// Path is that of a file in its folder.
func (e Entry) Path(name string) string { return filepath.Join(e.Dir, name) }

// maxRecord bounds what is read of a guest's record.
const maxRecord = 1 << 20

// Record returns what the guest's process last said of it.
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

// Open opens a file of the guest's folder for reading.
func (e Entry) Open(name string) (*os.File, error) {
	root, lock, err := e.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	defer lock.Close()
	return openFile(root, name, os.O_RDONLY)
}

// Alive looks again whether the guest's process lives.
func Alive(e Entry) bool {
	root, lock, err := e.open()
	if err != nil { // a host that does not let one look has not ended it
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errForeign)
	}
	defer root.Close()
	defer lock.Close()
	return held(lock)
}

// open opens the guest's folder and its lock. It fails if the folder is another
// one by now, as when another process has the name.
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

// same reports whether two looks were at one file, and not at a later one that has
// its number.
func same(a, b fs.FileInfo) bool { return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) }

// NotFoundError says that no guest has the name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("no guest is called %q; see 'vmm ps -a'", e.Name)
}

// Find returns the guest of that name.
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

// List returns all guests, by name. It looks, and changes nothing: a folder that
// no guest has any more is swept by the next that comes.
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

// folders calls f with each folder that a guest has, or has had.
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

// entry looks at a folder. One that nobody lives in and that is not to be kept
// is no guest. An error that is errForeign says that it is not ours.
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
	e, err := r.Find(name) // before the lock: looking makes none
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

// sweepAll removes what those left behind whose process was killed and that nobody
// asked to keep. What cannot be removed stays. r's lock is held.
func (r *Roster) sweepAll() {
	r.folders(func(e Entry, is bool) error {
		if !is {
			r.sweep(e.Name)
		}
		return nil
	})
}
