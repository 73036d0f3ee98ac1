package hostfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes files, directories (names that end in /) and links (NAME -> TEXT) in a
// new directory, which becomes the working one.
func tree(t *testing.T, names ...any) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, n := range names {
		var err error
		switch n := n.(type) {
		case [2]string:
			err = os.Symlink(n[1], n[0])
		case string:
			if n[len(n)-1] == '/' {
				err = os.MkdirAll(n, 0o755)
			} else {
				err = os.WriteFile(n, []byte(n), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// both runs a test with Sets of both kinds.
func both(t *testing.T, f func(t *testing.T, places bool)) {
	for what, places := range map[string]bool{"with places": true, "without": false} {
		t.Run(what, func(t *testing.T) { f(t, places) })
	}
}

func read(t *testing.T, s *Set, path string) (string, error) {
	t.Helper()
	f, err := s.Open(path, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Name() != path {
		t.Errorf("%s: its name is %s", path, f.Name())
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Error(err)
	}
	return string(b), nil
}

// TestHeld: a held file is the one opened, whatever its name leads to by then.
func TestHeld(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "d/", "d/file", "other", [2]string{"link", "d/file"}, [2]string{"way", "d"})
		s := New(places)
		defer s.Close()
		paths := []string{"d/file", "link", "way/file", "d/../d//file", "./link"}
		for _, p := range paths {
			s.Hold(p)
		}
		s.Hold("d")
		for _, err := range []error{
			os.Remove("link"), os.Symlink("other", "link"), os.Remove("way"), os.Symlink(".", "way"),
			os.Rename("d", "away"), os.Symlink("other", "d"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range paths {
			if got, err := read(t, s, p); got != "d/file" || err != nil {
				t.Errorf("%s: %q, %v", p, got, err)
			}
		}
		r, err := s.OpenRoot("d")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if b, err := r.ReadFile("file"); string(b) != "d/file" {
			t.Errorf("the directory: %q, %v", b, err)
		}
		if got, err := read(t, nil, "link"); got != "other" || err != nil {
			t.Errorf("no Set: %q, %v", got, err)
		}
	})
}

// TestOpenErrors: errors are the same as if the path had been opened directly.
func TestOpenErrors(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "d/", "file", [2]string{"loop", "loop"}, [2]string{"dangling", "none"})
		s := New(places)
		defer s.Close()
		for path, want := range map[string]error{
			"absent": unix.ENOENT, "absent/x": unix.ENOENT, "file/x": unix.ENOTDIR, "file/": unix.ENOTDIR,
			"loop": unix.ELOOP, "dangling": unix.ENOENT, "": unix.ENOENT,
		} {
			s.Hold(path)
			_, err := s.Open(path, os.O_RDONLY)
			_, plain := (*Set)(nil).Open(path, os.O_RDONLY)
			var pe *fs.PathError
			if !errors.Is(err, want) || !errors.Is(plain, want) || !errors.As(err, &pe) || pe.Path != path {
				t.Errorf("%q: %v, and %v without a Set; want %v", path, err, plain, want)
			}
		}
		if err := os.WriteFile("absent", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open("absent", os.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what came later: %v", err)
		}
		if _, err := s.Open("never", os.O_RDONLY); err == nil {
			t.Error("what nobody held is open")
		}
	})
}

// TestMagicLinks: a link to a descriptor of this process leads to its open file, whatever
// the link's text.
func TestMagicLinks(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "file")
		f, err := os.Open("file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		path := Name(int(f.Fd()))
		if err := os.Remove("file"); err != nil {
			t.Fatal(err)
		}
		s := New(places)
		defer s.Close()
		s.Hold(path)
		if got, err := read(t, s, path); got != "file" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestSharedLinks: the kernel's rule for other users' links in /tmp is kept.
func TestSharedLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a link of somebody else's")
	}
	tree(t, "tmp/", "file", [2]string{"tmp/mine", "../file"}, [2]string{"tmp/theirs", "../file"})
	if err := errors.Join(os.Chmod("tmp", 0o777|fs.ModeSticky), os.Lchown("tmp/theirs", 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	s := New(true)
	defer s.Close()
	for path, want := range map[string]error{"tmp/mine": nil, "tmp/theirs": unix.EACCES} {
		s.Hold(path)
		if _, err := s.Open(path, os.O_RDONLY); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

// TestParent: names are looked up in the held directory.
func TestParent(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "d/", "d/x", "d/letter", "e/", [2]string{"way", "d"}, [2]string{"d/link", "letter"})
		s := New(places)
		defer s.Close()
		for _, p := range []string{"way/x", "way/new", "x", "way/", "none/x", "way/link", "way/made"} {
			s.HoldParent(p)
		}
		if err := errors.Join(os.Remove("way"), os.Symlink("e", "way")); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{"way/x": "x", "way/new": "new", "x": "x"} {
			dir, name, err := s.OpenParent(path)
			if err != nil || name != want {
				t.Errorf("%s: %q, %v", path, name, err)
				continue
			}
			var st unix.Stat_t
			if err := unix.Fstatat(int(dir.Fd()), "x", &st, 0); (err == nil) != (path != "x") {
				t.Errorf("%s: another directory: %v", path, err)
			}
			dir.Close()
		}
		if f, err := s.Create("way/link", os.O_WRONLY); err == nil || !errors.Is(err, errLink) {
			t.Errorf("a link: %v, %v", f, err)
		}
		if f, err := s.Create("way/made", os.O_WRONLY); err != nil {
			t.Error(err)
		} else {
			f.Close()
		}
		if info, err := os.Stat("d/made"); err != nil || info.Mode() != 0o600 {
			t.Errorf("what is made: %v, %v", info, err)
		}
		for path, want := range map[string]error{"way/": unix.EISDIR, "none/x": unix.ENOENT} {
			if _, _, err := s.OpenParent(path); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", path, err, want)
			}
			if _, _, err := (*Set)(nil).OpenParent(path); !errors.Is(err, want) {
				t.Errorf("%s without a Set: %v, want %v", path, err, want)
			}
		}
	})
}

// TestRoots: a directory is made and held. The second time it exists.
func TestRoots(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "file")
		for range 2 {
			s := New(places)
			s.HoldRoot("a/b")
			r, err := s.OpenRoot("a/b")
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			s.HoldRoot("file/b")
			if _, err := s.OpenRoot("file/b"); !errors.Is(err, unix.ENOTDIR) {
				t.Error(err)
			}
			s.Close()
		}
		if info, err := os.Stat("a/b"); err != nil || info.Mode().Perm() != 0o700 {
			t.Error(info, err)
		}
	})
}

// TestThrough: which paths a guest can redirect if it may write to the directory s.
func TestThrough(t *testing.T) {
	tree(t, "s/", "s/sub/", "s/sub/file", "s/file", "other/", "other/file", "run/",
		[2]string{"s/out", "../other"}, [2]string{"s/filelink", "../other/file"}, [2]string{"in", "s/sub/file"}, [2]string{"same", "s"}, [2]string{"run/back", "../s/out/file"})
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, known := range map[string]mounts{"mounts are known": readMounts(), "or not": {}} {
		t.Run(name, func(t *testing.T) { through(t, here, known) })
	}
}

func through(t *testing.T, here string, known mounts) {
	s := New(true)
	s.mounts = known
	defer s.Close()
	dir := s.Hold("s")
	for _, test := range []struct {
		name string
		p    *Place
		want bool
	}{
		{"a file in it", s.Hold("s/file"), true},
		{"below it", s.Hold("s/sub/file"), true},
		{"by its absolute path", s.Hold(filepath.Join(here, "s/file")), true},
		{"by another name of it", s.Hold("same/sub/file"), true},
		{"a link to it", s.Hold("in"), true},
		{"a link in it that leads out", s.Hold("s/out/file"), true},
		{"a link in it to a file", s.Hold("s/filelink"), true},
		{"a link to a link in it", s.Hold("run/back"), true},
		{"a directory in it", s.Hold("s/sub"), true},
		{"absent in it", s.Hold("s/none"), true},
		{"absent far in it", s.Root("s/none/none/none"), true},
		{"to be made in it", s.Look("s/new"), true},
		{"a name in it", s.HoldParent("s/sock"), true},
		{"a name below it", s.HoldParent("s/sub/sock"), true},
		{"itself, for files", s.Root("s"), true},
		{"by a link, for files", s.Root("same"), true},
		{"itself", s.Hold("s/."), false},
		{"beside it", s.Hold("other/file"), false},
		{"up and away", s.Hold("s/../other/file"), false},
		{"beside it, for files", s.Root("run"), false},
		{"absent beside it", s.Root("run/none/none"), false},
		{"a name beside it", s.HoldParent("sock"), false},
		{"what it is in", s.Hold("."), false},
	} {
		if got := test.p.Through(dir); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if s.Hold("s/file").Through(s.Hold("other/file")) {
		t.Error("a file is no directory")
	}
}

// TestThroughMounts: a directory mounted in a second place is the same directory.
func TestThroughMounts(t *testing.T) {
	tree(t, "s/", "s/sub/", "s/sub/file", "s/file", "two/", "one/", "other/", "other/file")
	for from, to := range map[string]string{"s/sub": "two", "s": "one"} {
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("needs to mount: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	s := New(true)
	defer s.Close()
	for _, test := range []struct {
		path, dir string
		want      bool
	}{
		{"two/file", "s", true},
		{"two/file", "one", true},
		{"two/file", "s/sub", true},
		{"s/sub/file", "two", true},
		{"one/sub/file", "two", true},
		{"s/file", "two", false},
		{"other/file", "two", false},
		{"other/file", "one", false},
	} {
		if got := s.Hold(test.path).Through(s.Hold(test.dir)); got != test.want {
			t.Errorf("%s through %s: %v", test.path, test.dir, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	m := parseMounts("36 35 98:0 /mnt1 /mnt/a\\040b\\134 rw,noatime master:1 - ext3 /dev/root rw\nnonsense\n37 36 98:0 / / rw - ext3 x rw\n")
	want := mount{spot{"98:0", "/mnt1"}, `/mnt/a b\`}
	if len(m) != 2 || m["36"] != want {
		t.Errorf("%+v", m)
	}
	for _, test := range []struct {
		s, d spot
		want bool
	}{
		{spot{"1:1", "/a/b"}, spot{"1:1", "/a"}, true},
		{spot{"1:1", "/a"}, spot{"1:1", "/a"}, true},
		{spot{"1:1", "/ab"}, spot{"1:1", "/a"}, false},
		{spot{"1:1", "/a"}, spot{"1:1", "/a/b"}, false},
		{spot{"1:2", "/a/b"}, spot{"1:1", "/a"}, false},
		{spot{"1:1", "/a"}, spot{"1:1", "/"}, true},
	} {
		if got := test.s.in(test.d); got != test.want {
			t.Errorf("%v in %v: %v", test.s, test.d, got)
		}
	}
}

// FuzzParseMounts: any text from the kernel can be parsed.
func FuzzParseMounts(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt/a\\040b rw - ext3 /dev/root rw\n")
	f.Add("36 35 98:0 \\ \\04\n")
	f.Fuzz(func(t *testing.T, text string) { parseMounts(text) })
}

// TestNoLeak: no descriptor is left, whatever the paths.
func TestNoLeak(t *testing.T) {
	both(t, func(t *testing.T, places bool) {
		tree(t, "d/", "d/file", [2]string{"link", "d/file"}, [2]string{"loop", "loop"}, [2]string{"abs", "/"})
		count := func() int {
			all, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		use := func() {
			s := New(places)
			defer s.Close()
			for _, p := range []string{"d/file", "link", "loop", "d//./../d/file/", "none/x", "abs/", "abs", "", "/", ".", "/proc/self/cwd", "d/file/x"} {
				s.Hold(p)
				s.Hold(p)
				s.HoldParent(p)
				s.Root(p)
				s.Look(p)
			}
		}
		use() // the runtime opens some of its own
		before := count()
		for range 10 {
			use()
		}
		if after := count(); after > before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// TestNoProc: if /proc is missing, the error does not say that the file is.
func TestNoProc(t *testing.T) {
	s := New(false)
	s.files["x"] = held{fd: 1 << 30} // its name in /proc does not exist, as without /proc
	if _, err := s.Open("x", os.O_RDONLY); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount it") {
		t.Error(err)
	}
}
