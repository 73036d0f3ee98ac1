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
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Files in a guest's folder.
const (
	socketFile = "api.sock"
	lockFile   = "lock"
	recordFile = "guest.json"
	keepFile   = "keep" // the folder outlives the process
)

// maxName is a DNS label's, because names become host names.
const maxName = 63

// Roster is one runtime directory.
type Roster struct{ dir string }

// Dir returns the runtime directory that is used unless told otherwise:
// VMM_RUNTIME_DIR, or vmm in XDG_RUNTIME_DIR, or one of the user's own in /run
// (root) or in the directory of temporary files.
func Dir() string {
	if dir := os.Getenv("VMM_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "vmm")
	}
	if os.Geteuid() == 0 {
		return "/run/vmm"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("vmm-%d", os.Geteuid()))
}

// Open opens a runtime directory, which it makes if there is none. One that
// others may write to is refused: they could put sockets of theirs there.
func Open(dir string) (*Roster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return nil, fmt.Errorf("runtime directory %s: %w", dir, err)
	}
	if int(s.Uid) != os.Geteuid() || s.Mode&0o022 != 0 {
		return nil, fmt.Errorf("runtime directory %s: others may write there; make it yours alone with: chmod 700 %[1]s", dir)
	}
	return &Roster{dir}, nil
}

// Dir is the directory's absolute path.
func (r *Roster) Dir() string { return r.dir }

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
}

// Socket is the path of its API.
func (e Entry) Socket() string { return filepath.Join(e.Dir, socketFile) }

// Record returns what the guest's process last said of it.
func (e Entry) Record() ([]byte, error) { return os.ReadFile(filepath.Join(e.Dir, recordFile)) }

// Alive looks again whether the guest's process lives.
func Alive(e Entry) bool { return held(e.Path(lockFile)) }

// Path is that of a file in its folder.
func (e Entry) Path(name string) string { return filepath.Join(e.Dir, name) }

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
	e, ok := r.entry(name)
	if !ok {
		return Entry{}, &NotFoundError{name}
	}
	return e, nil
}

// List returns all guests, by name. It removes what those left behind whose
// process was killed and that nobody asked to keep.
func (r *Roster) List() ([]Entry, error) {
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, f := range files {
		if !f.IsDir() || CheckName(f.Name()) != nil {
			continue
		}
		if e, ok := r.entry(f.Name()); ok {
			all = append(all, e)
		} else {
			r.sweep(f.Name())
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// entry looks at a folder. One that nobody lives in and that is not to be kept
// is no guest.
func (r *Roster) entry(name string) (Entry, bool) {
	e := Entry{Name: name, Dir: filepath.Join(r.dir, name)}
	e.Alive = held(e.Path(lockFile))
	if e.Alive {
		return e, true
	}
	_, err := os.Stat(e.Path(keepFile))
	return e, err == nil
}

// sweep removes the folder of a process that is gone, unless a new one has just
// taken the name.
func (r *Roster) sweep(name string) {
	defer r.exclusive()()
	if _, ok := r.entry(name); !ok {
		os.RemoveAll(filepath.Join(r.dir, name))
	}
}

// InUseError says that a guest has the name already.
type InUseError struct{ Entry Entry }

func (e *InUseError) Error() string {
	if e.Entry.Alive {
		return fmt.Sprintf("name %q: a guest that runs has it; choose another, or end that one with: vmm kill %[1]s", e.Entry.Name)
	}
	return fmt.Sprintf("name %q: a guest that has ended has it; choose another, or remove that one with: vmm rm %[1]s", e.Entry.Name)
}

// Remove removes a guest that has ended, and all files of its folder.
func (r *Roster) Remove(name string) error {
	defer r.exclusive()()
	e, err := r.Find(name)
	if err != nil {
		return err
	}
	if e.Alive {
		return fmt.Errorf("guest %s runs; end it first, or use: vmm rm --force %[1]s", name)
	}
	return os.RemoveAll(e.Dir)
}

// exclusive is held while folders come and go.
func (r *Roster) exclusive() (release func()) {
	f, err := os.OpenFile(filepath.Join(r.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return func() {} // then nothing can be made there either
	}
	lock(f, true)
	return func() { f.Close() }
}

// lock takes the lock on a file, which is its open description's (fcntl(2), OFD
// locks): no other descriptor of the process loses it by being closed.
func lock(f *os.File, wait bool) error {
	command := unix.F_OFD_SETLK
	if wait {
		command = unix.F_OFD_SETLKW
	}
	for {
		err := unix.FcntlFlock(f.Fd(), command, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != unix.EINTR {
			return err
		}
	}
}

// held reports whether some process has the lock, without taking it.
func held(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	} else if err != nil {
		return true // so that nobody removes it
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) != nil || l.Type != unix.F_UNLCK
}
