package roster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// picture returns all that a directory holds: names, kinds, times, contents.
func picture(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var text []byte
		if info.Mode().IsRegular() {
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		all = append(all, fmt.Sprint(path, info.Mode(), info.ModTime(), sha256.Sum256(text)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// photos makes files of the user, some with names that this program uses.
func photos(t *testing.T, dir string) {
	t.Helper()
	tree(t, dir, "photos/2024/a.jpg", "empty/", "file", "link->photos", "kept/keep", "kept/photo", "locked/lock", "locked/guest.json", "logs/console.log",
		".hidden/a", "looped->looped", "web/api.sock", "mixed/lock/lock", "linked/lock->../file")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "marked"), []byte(mark), 0o600), os.Mkdir(filepath.Join(dir, "hard"), 0o700), os.Link(filepath.Join(dir, "marked"), filepath.Join(dir, "hard", lockFile)),
		os.Mkdir(filepath.Join(dir, "soft"), 0o700), os.Symlink("../marked", filepath.Join(dir, "soft", lockFile)),
		os.Mkdir(filepath.Join(dir, "piped"), 0o700), unix.Mkfifo(filepath.Join(dir, "piped", lockFile), 0o600), os.Mkdir(filepath.Join(dir, "closed"), 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
}

// TestLooking: looking changes nothing, whatever the directory holds.
func TestLooking(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	photos(t, dir)
	before := picture(t, dir)
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.List(); len(all) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
	for _, name := range []string{"photos", "empty", "file", "link", "kept", "locked", "hard", "soft", "piped", "mixed", "linked", "closed", "none"} {
		if e, err := r.Find(name); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		if err := r.Remove(name); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if after := picture(t, dir); !slices.Equal(before, after) {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// TestClaimForeign: a foreign file's name cannot be claimed, and guests that come and go
// beside foreign files do not touch them.
func TestClaimForeign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	photos(t, dir)
	before := picture(t, dir)
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"photos", "empty", "file", "link", "kept", "locked", "hard", "soft", "piped", "mixed", "linked", "closed", "looped"} {
		var taken *InUseError
		if _, err := r.Claim(name, true); !errors.As(err, &taken) || !taken.Foreign || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 {
		c := claim(t, r, "guest", false)
		if err := c.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := claim(t, r, "guest", true).Abandon(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, dirLock)); err != nil {
		t.Error(err)
	}
	if after := picture(t, dir); !slices.Equal(before[1:], after[1:]) { // except the directory's own time
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// TestOthersFolder: a folder that looks like a guest's but belongs to another user is not
// a guest.
func TestOthersFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	for _, given := range []string{"web", "web/" + lockFile} {
		r := open(t)
		if err := claim(t, r, "web", true).Release(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(r.path(given), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if e, err := r.Find("web"); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s: %+v, %v", given, e, err)
		}
		if err := r.Remove("web"); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s: removed: %v", given, err)
		}
		var taken *InUseError
		if _, err := r.Claim("web", false); !errors.As(err, &taken) || !taken.Foreign {
			t.Errorf("%s: claimed: %v", given, err)
		}
	}
}

// TestStranger: if a guest's folder has a file that vmm did not make, the whole folder
// stays, and an attempt to remove it gets an error.
func TestStranger(t *testing.T) {
	for _, stranger := range []string{"notes.txt", "below/photo", "console.log->../../secret", "guest.json.new->/etc/passwd", "api.sock", "vmm.log/x", "keep.1->x"} {
		t.Run(strings.ReplaceAll(stranger, "/", "_"), func(t *testing.T) {
			r := open(t)
			for _, kept := range []bool{true, false} {
				name := "web" + map[bool]string{true: "", false: "-passing"}[kept]
				c := claim(t, r, name, kept)
				if err := c.SetRecord([]byte("{}")); err != nil {
					t.Fatal(err)
				}
				tree(t, c.Dir, stranger)
				c.close() // as by a kill
				before := picture(t, c.Dir)
				want := new(*StrangerError)
				_, err := r.Claim(name, false)
				if kept {
					err = r.Remove(name)
				}
				if !errors.As(err, want) || !strings.Contains(err.Error(), "move that away") {
					t.Errorf("%v", err)
				}
				if after := picture(t, c.Dir); !slices.Equal(before, after) {
					t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
				}
			}
			if err := claim(t, r, "other", false).Release(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHalf: half-made folders of a killed process are swept, in every state that it may
// have left. Foreign folders in their place are not.
func TestHalf(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		stays bool
	}{
		{"empty", nil, false},
		{"begun", map[string]string{lockFile: ""}, false},
		{"half a mark", map[string]string{lockFile: mark[:10]}, false},
		{"whole", map[string]string{lockFile: mark, pidFile: "", keepFile: ""}, false},
		{"another lock", map[string]string{lockFile: "mine"}, true},
		{"unmarked", map[string]string{lockFile: "", ConsoleLog: "x"}, true},
		{"no lock", map[string]string{ConsoleLog: "x"}, true},
		{"more", map[string]string{lockFile: mark, "photo": "x"}, true},
	} {
		for _, name := range []string{comes, goes} {
			t.Run(test.name+name, func(t *testing.T) {
				r := open(t)
				c := claim(t, r, "web", false) // needs the name comes
				if err := os.Mkdir(r.path(name), 0o700); err != nil {
					t.Fatal(err)
				}
				for file, text := range test.files {
					if err := os.WriteFile(r.path(name, file), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				before := picture(t, r.path(name))
				_, claimErr := r.Claim("db", false)
				err := errors.Join(c.Release(), claimErr) // needs the name goes
				if (err != nil) != test.stays {
					t.Errorf("%v", err)
				}
				if test.stays {
					if after := picture(t, r.path(name)); !slices.Equal(before, after) {
						t.Errorf("%s", strings.Join(after, "\n"))
					}
				} else if _, err := os.Lstat(r.path(name)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("it is still there: %v", err)
				}
			})
		}
	}
}

// TestDirLock: a process that hangs with the directory's lock causes an error in time, not
// an endless wait. A lock that is a link is not followed.
func TestDirLock(t *testing.T) {
	r := open(t)
	c := claim(t, r, "web", true)
	other, err := Create(r.Dir())
	if err != nil {
		t.Fatal(err)
	}
	release, err := other.exclusive()
	if err != nil {
		t.Fatal(err)
	}
	r.patience = 10 * time.Millisecond
	if _, err := r.Claim("db", false); err == nil || !strings.Contains(err.Error(), "has held its lock") {
		t.Errorf("%v", err)
	}
	if got := names(t, r); got != "+web" {
		t.Errorf("%s", got)
	}
	release()
	if err := c.Release(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(r.path(dirLock)), os.Symlink("elsewhere", r.path(dirLock))); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove("web"); !errors.Is(err, errForeign) {
		t.Errorf("%v", err)
	}
}
