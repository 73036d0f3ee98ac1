package roster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Files in a guest's folder. It has no others: any other file is left in place, and so
// is the folder.
const (
	socketFile = "api.sock"
	lockFile   = "lock" // its contents mark the folder as a guest's
	pidFile    = "pid"  // see process.go
	recordFile = "guest.json"
	keepFile   = "keep" // the folder outlives the process

	ConsoleLog = "console.log" // what the guest prints
	Log        = "vmm.log"     // what vmm says about it
	StderrLog  = "stderr.log"  // what Go's runtime says when vmm itself goes wrong
)

// mark is the content of the lock file in a folder that this program has made.
const mark = "A guest of vmm has this folder. See docs/lifecycle.md.\n"

// Folders that are being made or removed, under the directory's lock. No guest has
// such a name.
const (
	comes = ".vmm.new"
	goes  = ".vmm.old"
)

// known reports whether a file is one of those above, or one of the two that may
// accompany one: the next version and the previous one.
func known(name string) bool {
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".new"), ".1")
	return slices.Contains([]string{socketFile, lockFile, pidFile, recordFile, keepFile, ConsoleLog, Log, StderrLog}, name)
}

// errForeign says that this program did not make a file or folder.
var errForeign = errors.New("vmm did not make it")

// ours reports whether a file belongs to the user, has no other name, and is not a link.
func ours(info fs.FileInfo) bool {
	s := info.Sys().(*syscall.Stat_t)
	return int(s.Uid) == os.Geteuid() && (info.IsDir() || s.Nlink == 1 && info.Mode().Type()&^fs.ModeSocket == 0)
}

// openFile opens a regular file in a guest's folder, and follows no link.
func openFile(root *os.Root, name string, flag int) (*os.File, error) {
	was, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !ours(was) || !was.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errForeign}
	}
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if is, err := f.Stat(); err != nil || !os.SameFile(was, is) {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: errForeign}
	}
	return f, nil
}

// openFolder opens a guest's folder and its lock. It returns fs.ErrNotExist, or
// errForeign if the name belongs to something that is not provably a guest's folder.
func openFolder(above *os.Root, name string) (root *os.Root, lock *os.File, err error) {
	info, err := above.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() || !ours(info) {
		return nil, nil, errForeign
	}
	if root, err = openDir(above, name); err != nil {
		return nil, nil, foreign(err)
	}
	if lock, err = openFile(root, lockFile, os.O_RDONLY); err == nil {
		if start(lock) == mark {
			return root, lock, nil
		}
		lock.Close()
		err = errForeign
	}
	root.Close()
	return nil, nil, foreign(err)
}

// foreign distinguishes a host that cannot say what something is from something that is
// not a guest's folder: a folder without a lock, or one closed to its owner.
func foreign(err error) error {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR, syscall.EIO} {
		if errors.Is(err, e) {
			return err
		}
	}
	return errForeign
}

// A StrangerError says that a guest's folder has a file that vmm did not make.
type StrangerError struct {
	Name string
	Path string // of the file
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("guest %s: vmm did not make %s, so its folder stays; move that away first", e.Name, e.Path)
}

// sweep removes the folder of a guest whose process has gone. If the folder has a file
// that is not ours, nothing is removed. r's lock is held.
func (r *Roster) sweep(name string) error {
	root, lock, err := openFolder(r.root, name)
	if err != nil {
		return err
	}
	defer root.Close()
	defer lock.Close()
	if err := r.checkFiles(root, name); err != nil {
		return err
	}
	if err := r.clear(goes); err != nil {
		return err
	}
	if err := r.root.Rename(name, goes); err != nil { // so that a half-removed folder is not a guest
		return err
	}
	return r.clear(goes)
}

// checkFiles looks for files in a guest's folder that are not ours.
func (r *Roster) checkFiles(root *os.Root, name string) error {
	files, err := readDir(root)
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := root.Lstat(f.Name())
		if err != nil {
			return err
		}
		if socket := info.Mode().Type() == fs.ModeSocket; info.IsDir() || !known(f.Name()) || !ours(info) || socket != (f.Name() == socketFile) {
			return &StrangerError{name, r.path(name, f.Name())}
		}
	}
	return nil
}

// clear removes a folder that is being made or removed, file by file. The lock, which
// identifies the folder, goes last. A folder without a lock is empty, or not ours.
func (r *Roster) clear(name string) error {
	root, err := openDir(r.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", r.path(name), reason(err))
	}
	defer root.Close()
	if err := r.checkFiles(root, name); err != nil {
		return err
	}
	files, err := readDir(root)
	if err != nil {
		return err
	}
	if len(files) > 0 && !marked(root, len(files) == 1) {
		return &StrangerError{name, r.path(name, files[0].Name())}
	}
	for _, f := range files {
		if f.Name() != lockFile {
			if err := root.Remove(f.Name()); err != nil {
				return err
			}
		}
	}
	if err := root.Remove(lockFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.root.Remove(name)
}

// marked reports whether a folder's lock has the mark or, if alone, at least its
// beginning: the lock is then the only file.
func marked(root *os.Root, alone bool) bool {
	f, err := openFile(root, lockFile, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	text := start(f)
	return text == mark || alone && strings.HasPrefix(mark, text)
}

// start returns the beginning of a lock, at most the mark's length and one byte.
func start(lock *os.File) string {
	b := make([]byte, len(mark)+1)
	n, _ := io.ReadFull(lock, b)
	return string(b[:n])
}

func readDir(root *os.Root) ([]fs.DirEntry, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}
