package roster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes files: a name that ends in / is a directory, a name with -> is a link.
func tree(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		from, to, link := strings.Cut(name, "->")
		path := filepath.Join(dir, from)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(to, path)
		case strings.HasSuffix(from, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(from), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// put makes a directory with an owner, or none if the mode is 0.
func put(t *testing.T, path string, mode fs.FileMode, owner int) {
	t.Helper()
	if mode == 0 {
		return
	}
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, owner, -1), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// TestOpen: which directories may be the runtime directory.
func TestOpen(t *testing.T) {
	const us, root, stranger = -1, 0, 12345
	for _, test := range []struct {
		name         string
		parent, dir  fs.FileMode // 0: none
		parentOf, of int
		link         bool
		want         string
		privileged   bool // the test needs root
	}{
		{name: "ours", parent: 0o755, dir: 0o700, parentOf: us, of: us},
		{name: "readable", parent: 0o755, dir: 0o755, parentOf: us, of: us},
		{name: "like /tmp", parent: 0o777 | fs.ModeSticky, dir: 0o700, parentOf: us, of: us},
		{name: "the group's parent", parent: 0o775, dir: 0o700, parentOf: us, of: us},
		{name: "in one of root", parent: 0o755, dir: 0o700, parentOf: root, of: us, privileged: true},
		{name: "none", parent: 0o755, parentOf: us, of: us},
		{name: "no parent"},
		{name: "open to all", parent: 0o755, dir: 0o777, parentOf: us, of: us, want: "others may write there; make it yours alone with: chmod 700 "},
		{name: "open to a group", parent: 0o755, dir: 0o770, parentOf: us, of: us, want: "others may write there; make it yours alone with: chmod 700 "},
		{name: "a parent open to all", parent: 0o777, dir: 0o700, parentOf: us, of: us, want: "could replace it; choose another by --runtime-dir"},
		{name: "a parent open to all, and none", parent: 0o777, parentOf: us, of: us, want: "could replace it; choose another by --runtime-dir"},
		{name: "a link", parent: 0o755, dir: 0o700, parentOf: us, of: us, link: true, want: "symbolic link"},
		{name: "another's", parent: 0o755, dir: 0o700, parentOf: us, of: stranger, want: "it belongs to user 12345, and you are user 0; choose another by --runtime-dir or VMM_RUNTIME_DIR", privileged: true},
		{name: "another's, open to all", parent: 0o755, dir: 0o777, parentOf: us, of: stranger, want: "it belongs to user 12345", privileged: true},
		{name: "another's parent", parent: 0o755, dir: 0o700, parentOf: stranger, of: us, want: "belongs to user 12345, who could replace it", privileged: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.privileged && os.Geteuid() != 0 {
				t.Skip("needs root, for files of others")
			}
			parent := filepath.Join(t.TempDir(), "parent")
			dir := filepath.Join(parent, "vmm")
			put(t, parent, test.parent, test.parentOf)
			put(t, dir, test.dir, test.of)
			if test.link {
				if err := errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)); err != nil {
					t.Fatal(err)
				}
			}
			for what, open := range []func(string) (*Roster, error){Open, Create} {
				r, err := open(dir)
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")) {
					t.Fatalf("%d: %v, want %q", what, err, test.want)
				}
				if err == nil {
					r.Close()
				}
				if _, missing := os.Lstat(dir); what == 0 && test.dir == 0 && !errors.Is(missing, fs.ErrNotExist) {
					t.Error("to look has made it")
				}
			}
		})
	}
}

// TestOpenNone: a file in the directory's place, and no directory at all.
func TestOpenNone(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "file", "pipe/")
	for path, want := range map[string]string{"file": "not a directory", "file/below": "not a directory", "/": "is not one"} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		for _, open := range []func(string) (*Roster, error){Open, Create} {
			if _, err := open(path); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", path, err, want)
			}
		}
	}
	r, err := Open(filepath.Join(dir, "none"))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.List(); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := r.Find("web"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("%v", err)
	}
	if err := r.Remove("web"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("%v", err)
	}
	if _, err := r.Claim("web", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
