package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// folder returns a guest's folder.
func folder(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func allOfLog(t *testing.T, root *os.Root) string {
	t.Helper()
	r, err := ReadLog(root.Open, AllLines)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLogFile: the log keeps the end of any number of writes, at least max bytes and at
// most twice that.
func TestLogFile(t *testing.T) {
	root := folder(t)
	if got := allOfLog(t, root); got != "" {
		t.Errorf("no log is %q", got)
	}
	const most = 100
	var all strings.Builder
	l, err := openLog(root, ConsoleLog, most)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 180 {
		text := strings.Repeat(string(rune('a'+i%26)), i*i%(3*most))
		if n, err := io.WriteString(l, text); n != len(text) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		all.WriteString(text)
		got := allOfLog(t, root)
		if !strings.HasSuffix(all.String(), got) || len(got) < min(all.Len(), most) || len(got) > 2*most {
			t.Fatalf("after %d bytes the log has %d", all.Len(), len(got))
		}
	}
	files, err := os.ReadDir(root.Name())
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestReadLogMeanwhile: a reader gets what the log held when it began, whatever is
// written meanwhile.
func TestReadLogMeanwhile(t *testing.T) {
	root := folder(t)
	l, err := openLog(root, ConsoleLog, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	io.WriteString(l, "0123456789abc")
	r, err := ReadLog(root.Open, AllLines)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.WriteString(l, strings.Repeat("later", 20))
	if b, err := io.ReadAll(r); string(b) != "0123456789abc" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPlantedLogs: a file of any kind already in a log's place is not written to.
func TestPlantedLogs(t *testing.T) {
	for _, plant := range []struct {
		name string
		f    func(from, to string) error
	}{{"a link", os.Symlink}, {"a second name", os.Link}} {
		root, letter := folder(t), filepath.Join(t.TempDir(), "letter")
		if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := func(name string) string { return filepath.Join(root.Name(), name) }
		if err := errors.Join(plant.f(letter, at("planted")), plant.f(letter, at("log.new")), plant.f(letter, at("log.1"))); err != nil {
			t.Fatal(err)
		}
		if _, err := openLog(root, "planted", 10); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", plant.name, err)
		}
		l, err := openLog(root, "log", 10)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // two of them start a new file
			if _, err := io.WriteString(l, "0123456789abc"); err != nil {
				t.Errorf("%s: %v", plant.name, err)
			}
		}
		l.Close()
		if b, err := os.ReadFile(letter); string(b) != "dear" || err != nil {
			t.Errorf("%s: %q, %v", plant.name, b, err)
		}
	}
}

func watch(t *testing.T, o *output, lines int) *watcher {
	t.Helper()
	w, err := o.watch(lines)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newTestOutput(t *testing.T, console io.Writer) *output {
	t.Helper()
	l, err := openLog(folder(t), "log", LogSize)
	if err != nil {
		t.Fatal(err)
	}
	return newOutput(console, l, func(err error, _ int64) { t.Error(err) })
}

// TestWatchers: each gets the output from when it began, and earlier output if it wants
// that. All get the end.
func TestWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console bytes.Buffer
		o := newTestOutput(t, &console)
		var readers sync.WaitGroup
		follow := func(w *watcher, want string) {
			readers.Go(func() {
				if b, err := io.ReadAll(w); string(b) != want || err != nil {
					t.Errorf("%q, %v; want %q", b, err, want)
				}
				w.Close()
			})
		}
		follow(watch(t, o, AllLines), "onetwothree")
		io.WriteString(o, "one")
		follow(watch(t, o, 0), "twothree")
		follow(watch(t, o, AllLines), "onetwothree")
		gone := watch(t, o, 0)
		io.WriteString(o, "two")
		gone.Close()
		synctest.Wait() // all written output is read
		io.WriteString(o, "three")
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		readers.Wait()
		if b, err := io.ReadAll(gone); string(b) != "two" || err != nil {
			t.Errorf("one that left: %q, %v", b, err)
		}
		if b, err := io.ReadAll(watch(t, o, 0)); len(b) > 0 || err != nil {
			t.Errorf("one that came too late: %q, %v", b, err)
		}
		if console.String() != "onetwothree" {
			t.Errorf("console: %q", &console)
		}
	})
}

// TestSlowWatcher: a watcher that does not read delays nothing, costs bounded memory, and
// is told how much it missed.
func TestSlowWatcher(t *testing.T) {
	o := newTestOutput(t, nil)
	slow := watch(t, o, 0)
	for range 8 {
		o.Write(bytes.Repeat([]byte{'x'}, watcherSize/2))
	}
	if cap(slow.data) > 2*watcherSize {
		t.Errorf("it keeps %d bytes", cap(slow.data))
	}
	got := make([]byte, watcherSize)
	if _, err := io.ReadFull(slow, got); err != nil || bytes.Count(got, []byte{'x'}) != watcherSize {
		t.Errorf("the first bytes: %v", err)
	}
	b := make([]byte, 1000)
	n, err := slow.Read(b)
	if want := fmt.Sprintf("%d bytes of output are missing", 3*watcherSize); err != nil || !strings.Contains(string(b[:n]), want) {
		t.Errorf("%q, %v; want %q", b[:n], err, want)
	}
	io.WriteString(o, "later")
	if n, err = slow.Read(b); string(b[:n]) != "later" || err != nil {
		t.Errorf("what came after: %q, %v", b[:n], err)
	}
	o.Close()
}

// brokenWriter is a console that has gone.
type brokenWriter struct{}

var errGone = errors.New("gone")

func (brokenWriter) Write([]byte) (int, error) { return 0, errGone }

// TestBrokenOutput: Write returns the console's error.
func TestBrokenOutput(t *testing.T) {
	if _, err := newOutput(brokenWriter{}, nil, nil).Write([]byte("x")); err != errGone {
		t.Errorf("%v", err)
	}
}

// full makes a log's disk full until mend is called.
func full(t *testing.T, l *logFile) (mend func()) {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	was := l.f
	l.f = f
	return func() {
		f.Close()
		l.f = was
	}
}

// TestFullDisk: a log that could not be written continues once it can be, and says what is
// missing. Watchers miss nothing.
func TestFullDisk(t *testing.T) {
	l, err := openLog(folder(t), ConsoleLog, LogSize)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	o := newOutput(nil, l, func(err error, lost int64) { said = append(said, fmt.Sprint(err, lost)) })
	w := watch(t, o, 0)
	write := func(text string) {
		if n, err := io.WriteString(o, text); n != len(text) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	write("before")
	mend := full(t, l)
	write("one")
	write("three")
	mend()
	write("after")
	mend = full(t, l)
	write("four")
	mend()
	o.Close()
	if b, err := io.ReadAll(w); string(b) != "beforeonethreeafterfour" || err != nil {
		t.Errorf("a watcher has %q, %v", b, err)
	}
	if got, want := allOfLog(t, l.root), "before"+string(missing(8))+"after"+string(missing(4)); got != want {
		t.Errorf("the log has %q, want %q", got, want)
	}
	if want := []string{"write /dev/full: no space left on device 0", "<nil> 8"}; !slices.Equal(said, want) { // the second outage comes too soon after the first
		t.Errorf("%q, want %q", said, want)
	}
}

// TestNoTurn: what can keep a log from starting its next file. It continues once that is
// over.
func TestNoTurn(t *testing.T) {
	for _, test := range []struct {
		name       string
		hurt, mend func(dir string) error
	}{
		{"a directory in its place", func(dir string) error { return os.MkdirAll(dir+"/console.log.new/x", 0o700) }, func(dir string) error { return os.RemoveAll(dir + "/console.log.new") }},
		{"one instead of the older", func(dir string) error { return os.MkdirAll(dir+"/console.log.1/x", 0o700) }, func(dir string) error { return os.RemoveAll(dir + "/console.log.1") }},
		{"the older is there, the next not yet", func(dir string) error { return os.Rename(dir+"/console.log", dir+"/console.log.1") }, nil},
	} {
		root := folder(t)
		l, err := openLog(root, ConsoleLog, 100)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(l, strings.Repeat("a", 100))
		if err := test.hurt(root.Name()); err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("a", 100)
		if test.mend != nil {
			if n, err := io.WriteString(l, "lost"); n != 0 || err == nil {
				t.Errorf("%s: %d, %v", test.name, n, err)
			}
			if err := test.mend(root.Name()); err != nil {
				t.Fatal(err)
			}
			want += string(missing(4))
		}
		if _, err := io.WriteString(l, "goes on"); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := allOfLog(t, root); got != want+"goes on" {
			t.Errorf("%s: %q", test.name, got)
		}
		l.Close()
	}
}

// TestOutages: what is reported of them, and how often.
func TestOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		o := outages{tell: func(err error, lost int64) { said = append(said, fmt.Sprint(err, lost)) }}
		for range 100 { // one outage a second
			time.Sleep(time.Second)
			o.see(errGone, 0)
			o.see(errGone, 1)
			o.see(nil, 2)
			o.see(nil, 0)
		}
		if want := []string{"gone 0", "<nil> 2", "gone 0", "<nil> 120"}; !slices.Equal(said, want) {
			t.Errorf("%q, want %q", said, want)
		}
	})
}

func TestLastLines(t *testing.T) {
	for _, test := range []struct {
		b    string
		n    int
		want string
	}{
		{"a\nb\nc\n", 1, "c\n"}, {"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc\n", 3, "a\nb\nc\n"}, {"a\nb\nc\n", 9, "a\nb\nc\n"},
		{"a\nb\nc", 1, "c"}, {"a\nb\nc", 2, "b\nc"}, {"a\nb\nc", 0, ""}, {"a\nb\n", 0, ""},
		{"\n\n\n", 2, "\n\n"}, {"a\n\n", 1, "\n"}, {"", 3, ""}, {"", 0, ""}, {"\n", 1, "\n"},
	} {
		if got := string(lastLines([]byte(test.b), test.n)); got != test.want {
			t.Errorf("%d of %q: %q, want %q", test.n, test.b, got, test.want)
		}
	}
}
