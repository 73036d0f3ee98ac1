package roster

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t testing.TB) *Roster {
	t.Helper()
	r, err := Create(filepath.Join(t.TempDir(), "vmm"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// claim takes a name until the end of the test: otherwise the garbage collector would
// release it with the Claim's file.
func claim(t testing.TB, r *Roster, name string, keep bool) *Claim {
	t.Helper()
	c, err := r.Claim(name, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	return c
}

// names lists the roster: + is a live guest, - one that has ended.
func names(t testing.TB, r *Roster) string {
	t.Helper()
	all, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range all {
		b.WriteString(map[bool]string{true: "+", false: "-"}[e.Alive] + e.Name)
	}
	return b.String()
}

func TestLife(t *testing.T) {
	r := open(t)
	web, db := claim(t, r, "web", true), claim(t, r, "db", false)
	if got := names(t, r); got != "+db+web" {
		t.Errorf("two guests: %s", got)
	}
	if err := web.SetRecord([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := web.SetRecord([]byte("second")); err != nil {
		t.Fatal(err)
	}
	e, err := r.Find("web")
	if err != nil || !e.Alive {
		t.Fatalf("%+v, %v", e, err)
	}
	if b, err := e.Record(); string(b) != "second" {
		t.Errorf("record %q, %v", b, err)
	}
	l, err := net.Listen("unix", web.Socket())
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := errors.Join(web.Release(), db.Release()); err != nil {
		t.Error(err)
	}
	if got := names(t, r); got != "-web" {
		t.Errorf("after their end: %s", got)
	}
	if _, err := os.Lstat(web.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
	if err := r.Remove("web"); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(r.Dir()); err != nil || len(files) != 1 || files[0].Name() != ".lock" {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestRefused(t *testing.T) {
	r := open(t)
	claim(t, r, "alive", false)
	if err := claim(t, r, "ended", true).Release(); err != nil {
		t.Fatal(err)
	}
	if err := claim(t, r, "abandoned", true).Abandon(); err != nil {
		t.Fatal(err)
	}
	_, claimAlive := r.Claim("alive", true)
	_, claimEnded := r.Claim("ended", true)
	_, long := (&Roster{dir: r.path(strings.Repeat("x", 100))}).Claim("name", false)
	_, find := r.Find("nobody")
	_, swept := r.Find("abandoned")
	for _, test := range []struct {
		err  error
		want string
	}{
		{claimAlive, "vmm kill alive"}, {claimEnded, "vmm rm ended"}, {long, "--runtime-dir"},
		{find, "vmm ps -a"}, {swept, "vmm ps -a"},
		{r.Remove("alive"), "vmm rm --force alive"}, {r.Remove("nobody"), "no guest is called"}, {r.Remove("../x"), "must be letters"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) || strings.Contains(test.err.Error(), "\n") {
			t.Errorf("%v, want %q", test.err, test.want)
		}
	}
	for name, ok := range map[string]bool{
		"web": true, "web-1.a_B": true, "0": true, strings.Repeat("a", 63): true,
		"": false, ".": false, "..": false, ".web": false, "-web": false, "a/b": false, "a b": false, "ä": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

// another runs a test of this binary in another process, with the runtime directory in a
// variable, and returns when the process has claimed its names. It ends with the test.
func another(t *testing.T, r *Roster, test, variable string) *exec.Cmd {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
	child.Env = append(os.Environ(), variable+"="+r.Dir())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.StdinPipe(); err != nil { // the child waits for EOF
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "CLAIMED\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return child
}

// TestFullDisk: a guest's last state is known even if the disk is full.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	r, err := Create(filepath.Join(dir, "vmm"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := claim(t, r, "web", true)
	set := func(text string) {
		t.Helper()
		if err := c.SetRecord([]byte(text)); err != nil {
			t.Error(err)
		}
		if b, err := c.Record(); string(b) != text || err != nil {
			t.Errorf("%q, %v; want %q", b, err, text)
		}
	}
	set("it runs well")
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_, err = fill.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	set("ended")
	set("ended, and more was said of it")
	if err := c.SetRecord(make([]byte, 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a record that has no room: %v", err)
	}
	if b, err := c.Record(); string(b) != "ended, and more was said of it" || err != nil {
		t.Errorf("the one before: %.100q, %v", b, err)
	}
}

// TestKilled: processes killed while they hold names leave no live guests, and guests
// without keep are gone.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("VMM_TEST_CLAIM"); dir != "" {
		r, err := Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kept", "passing"} {
			c, err := r.Claim(name, name == "kept")
			if err != nil {
				t.Fatal(err)
			}
			defer runtime.KeepAlive(c) // otherwise its name is released
		}
		os.Stdout.WriteString("CLAIMED\n")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	r := open(t)
	child := another(t, r, "TestKilled", "VMM_TEST_CLAIM")
	if got := names(t, r); got != "+kept+passing" {
		t.Errorf("while it lives: %s", got)
	}
	child.Process.Kill()
	child.Wait()
	if got := names(t, r); got != "-kept" {
		t.Errorf("after it was killed: %s", got)
	}
	claim(t, r, "another", false) // this sweeps
	if _, err := os.Lstat(r.path("passing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder that nobody asked to keep: %v", err)
	}
	claim(t, r, "passing", false)
	if _, err := r.Claim("kept", false); err == nil {
		t.Error("the name of a guest that is kept was given away")
	}
}

// TestRace: of many that claim a name at once, while others list and remove, only one
// has it.
func TestRace(t *testing.T) {
	r := open(t)
	r.patience = time.Hour // one of 16 pollers may be unlucky for a long time
	var holders, claims atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				c, err := r.Claim("web", false)
				if err != nil {
					var taken *InUseError
					if !errors.As(err, &taken) {
						t.Error(err)
					}
					continue
				}
				if claims.Add(1); holders.Add(1) != 1 {
					t.Error("two have the name")
				}
				holders.Add(-1)
				if err := c.Release(); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 50 {
				if _, err := r.List(); err != nil {
					t.Error(err)
				}
				if err := r.Remove("web"); err != nil && !errors.As(err, new(*NotFoundError)) && !strings.Contains(err.Error(), "runs") {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if claims.Load() == 0 {
		t.Error("nobody got it")
	}
}

// BenchmarkList: the cost of listing 20 guests.
func BenchmarkList(b *testing.B) {
	r := open(b)
	for i := range 20 {
		claim(b, r, string(rune('a'+i)), false)
	}
	for b.Loop() {
		if all, err := r.List(); err != nil || len(all) != 20 {
			b.Fatal(len(all), err)
		}
	}
}
