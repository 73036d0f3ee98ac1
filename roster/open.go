package roster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Roster is one runtime directory.
type Roster struct {
	dir      string        // absolute
	root     *os.Root      // nil: there is none, and hence no guests
	patience time.Duration // with a process that holds the directory's lock
}

// path returns the path of a file in the directory.
func (r *Roster) path(names ...string) string {
	return filepath.Join(append([]string{r.dir}, names...)...)
}

// Open opens a runtime directory for reading. A directory that does not exist has no
// guests. It is an error if users other than this one can put something into the
// directory, or put something else in its place.
func Open(dir string) (*Roster, error) { return openAt(dir, false) }

// Create opens a runtime directory, and makes it if it does not exist.
func Create(dir string) (*Roster, error) { return openAt(dir, true) }

// Close closes the directory. Claims keep what they need.
func (r *Roster) Close() error {
	if r.root == nil {
		return nil
	}
	return r.root.Close()
}

// Dir is the directory's absolute path.
func (r *Roster) Dir() string { return r.dir }

// other says what to do when a directory cannot be used.
const other = "choose another by --runtime-dir or VMM_RUNTIME_DIR"

func openAt(dir string, create bool) (*Roster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir == "/" {
		return nil, fmt.Errorf("runtime directory /: is not one; %s", other)
	}
	parent := filepath.Dir(dir)
	if create {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return nil, fmt.Errorf("runtime directory: %w", err)
		}
	}
	above, err := os.OpenRoot(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return &Roster{dir: dir, patience: lockLimit}, nil
	} else if err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	defer above.Close()
	if err := checkParent(above, dir); err != nil {
		return nil, err
	}
	name := filepath.Base(dir)
	if create {
		if err := above.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("runtime directory %s: %w", dir, reason(err))
		}
	}
	root, err := openDir(above, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &Roster{dir: dir, patience: lockLimit}, nil
	} else if err != nil {
		return nil, fmt.Errorf("runtime directory %s: %w", dir, reason(err))
	}
	if err := checkDir(root, dir); err != nil {
		root.Close()
		return nil, err
	}
	return &Roster{dir, root, lockLimit}, nil
}

// reason returns an error without its path, which has been named already.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// errLink says that there is a symbolic link, which is not followed.
var errLink = errors.New("is a symbolic link, which is not followed; name the directory itself")

// openDir opens a directory in another, and follows no link.
func openDir(above *os.Root, name string) (*os.Root, error) {
	was, err := above.Lstat(name)
	switch {
	case err != nil:
		return nil, err
	case was.Mode()&fs.ModeSymlink != 0:
		return nil, errLink
	case !was.IsDir():
		return nil, syscall.ENOTDIR
	}
	root, err := above.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	is, err := root.Stat(".")
	if err == nil && !os.SameFile(was, is) {
		err = errLink // which it has become
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// stat returns the owner and the permissions of an open directory.
func stat(root *os.Root) (s *syscall.Stat_t, err error) {
	info, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	return info.Sys().(*syscall.Stat_t), nil
}

// checkDir refuses a directory that is not the user's alone: others could put their own
// sockets there.
func checkDir(root *os.Root, dir string) error {
	s, err := stat(root)
	switch {
	case err != nil:
		return fmt.Errorf("runtime directory %s: %w", dir, reason(err))
	case int(s.Uid) != os.Geteuid():
		return fmt.Errorf("runtime directory %s: it belongs to user %d, and you are user %d; %s", dir, s.Uid, os.Geteuid(), other)
	case s.Mode&0o022 != 0:
		return fmt.Errorf("runtime directory %s: others may write there; make it yours alone with: chmod 700 %[1]s", dir)
	}
	return nil
}

// checkParent refuses a directory in which others could replace the runtime directory.
// In a sticky directory, such as /tmp, they cannot. Two writers are accepted: root, and
// the user's own group, which many hosts have for each user.
func checkParent(above *os.Root, dir string) error {
	s, err := stat(above)
	if err != nil {
		return fmt.Errorf("runtime directory %s: %w", dir, reason(err))
	}
	uid, parent := os.Geteuid(), filepath.Dir(dir)
	writers := s.Mode & 0o022
	if int(s.Gid) == os.Getegid() {
		writers &^= 0o020
	}
	switch {
	case s.Uid != 0 && int(s.Uid) != uid:
		return fmt.Errorf("runtime directory %s: %s belongs to user %d, who could replace it, and you are user %d; %s", dir, parent, s.Uid, uid, other)
	case writers != 0 && s.Mode&syscall.S_ISVTX == 0:
		return fmt.Errorf("runtime directory %s: others may write to %s, and could replace it; %s", dir, parent, other)
	}
	return nil
}
