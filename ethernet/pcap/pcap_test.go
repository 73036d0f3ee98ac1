package pcap

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/ethernet"
)

// wire receives one frame, and accepts every frame unless err is set.
type wire struct {
	ethernet.Link
	frame []byte
	err   error
}

func (w *wire) Send(int, *ethernet.Header, [][]byte) error { return w.err }
func (w *wire) Receive(_ int, _ *ethernet.Header, bufs [][]byte) (int, error) {
	n := 0
	for _, b := range bufs {
		n += copy(b, w.frame[n:])
	}
	return n, w.err
}

func newLink(w *wire, to io.Writer) *Link {
	l := New(w, to, slog.New(slog.DiscardHandler))
	l.now = func() time.Time { return time.Unix(0x11223344, 0x0102) }
	return l
}

// open opens a recording as a machine does.
func open(t *testing.T, name string) (*File, error) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return NewFile(f)
}

// begin is open for a valid file.
func begin(t *testing.T, name string) *File {
	t.Helper()
	f, err := open(t, name)
	if err == nil {
		err = f.Begin()
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const headerText = "4d3cb2a1" + "02000400" + "00000000" + "00000000" + "00000400" + "01000000"

func recordText(frame string) string {
	n := fmt.Sprintf("%02x000000", len(frame))
	return "44332211" + "02010000" + n + n + hex.EncodeToString([]byte(frame))
}

func contains(t *testing.T, name, want string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("the file is\n%s, want\n%s", got, want)
	}
}

// TestFile: the bytes of a file with frames each way.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.pcap")
	w := &wire{frame: []byte("received")}
	l := newLink(w, begin(t, name))
	var h ethernet.Header
	l.Send(0, &h, [][]byte{[]byte("se"), []byte("nt")})
	l.Receive(0, &h, [][]byte{make([]byte, 3), make([]byte, 100)})
	w.err = ethernet.ErrAgain
	l.Send(0, &h, [][]byte{[]byte("not now")})
	l.Receive(0, &h, [][]byte{make([]byte, 100)})
	w.err = errors.New("lost")
	l.Send(0, &h, [][]byte{[]byte("lost")}) // recorded: it was on the wire
	l.Flush()
	contains(t, name, headerText+recordText("sent")+recordText("received")+recordText("lost"))
}

// TestGoesOn: a recording has the frames of all links, one after another, from this
// process and from others. An unfinished last record is cut off.
func TestGoesOn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.pcap")
	var h ethernet.Header
	f := begin(t, name)
	for _, frame := range []string{"1", "2"} {
		if err := f.Begin(); err != nil {
			t.Fatal(err)
		}
		l := newLink(&wire{}, f)
		l.Send(0, &h, [][]byte{[]byte(frame)})
		l.Flush()
	}
	f.Close()
	torn, err := hex.DecodeString(recordText("torn"))
	if err != nil {
		t.Fatal(err)
	}
	want := headerText + recordText("1") + recordText("2")
	for _, n := range []int{0, 1, recordHeader - 1, recordHeader, len(torn) - 1} {
		f := begin(t, name)
		contains(t, name, want)
		if n == 0 {
			l := newLink(&wire{}, f)
			l.Send(0, &h, [][]byte{[]byte("3")})
			l.Flush()
			want += recordText("3")
		}
		f.f.Write(torn[:n])
		f.Close()
	}
	begin(t, name)
	contains(t, name, want)
}

// TestNotOurs: a file in another format is left unchanged.
func TestNotOurs(t *testing.T) {
	valid, err := hex.DecodeString(headerText + recordText("frame"))
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) string {
		b := bytes.Clone(valid)
		b[at] = to
		return string(b)
	}
	for what, test := range map[string]struct{ content, want string }{
		"text":               {"a letter to my mother, which is longer than a header", "no recording of vmm's"},
		"short":              {"x", "no recording of vmm's"},
		"of microseconds":    {change(0, 0xd4), "no recording of vmm's"},
		"of another network": {change(20, 101), "no recording of vmm's"},
		"with a huge frame":  {change(fileHeader+11, 0xff), "damaged at byte 24"},
	} {
		name := filepath.Join(t.TempDir(), "out.pcap")
		if err := os.WriteFile(name, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := open(t, name)
		if err == nil {
			err = f.Begin()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
		contains(t, name, hex.EncodeToString([]byte(test.content)))
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := NewFile(null); err == nil {
		t.Error("a device is taken")
	}
}

// TestInUse: two programs cannot record to the same file.
func TestInUse(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.pcap")
	f := begin(t, name)
	if _, err := open(t, name); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second one: %v", err)
	}
	f.Close()
	begin(t, name)
}

// TestWholeRecords: each write has only whole records, so two links can share a file.
func TestWholeRecords(t *testing.T) {
	sizes := &writes{}
	l := newLink(&wire{}, sizes)
	var h ethernet.Header
	frame := make([]byte, ethernet.MaxFrame)
	for range 10 {
		l.Send(0, &h, [][]byte{frame[:1000], frame[1000:]})
	}
	l.Flush()
	total := 0
	for _, n := range *sizes {
		total += n
		if n%(recordHeader+len(frame)) != 0 {
			t.Errorf("%d bytes are written at once", n)
		}
	}
	if total != 10*(recordHeader+len(frame)) {
		t.Errorf("%d bytes in all", total)
	}
}

type writes []int

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, len(p))
	return len(p), nil
}

// FuzzRecords: whatever a file contains, the part that is kept is a valid prefix.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{"", recordText("frame"), recordText("a") + recordText("b")[:20], strings.Repeat("ff", 40)} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := records(bufio.NewReader(bytes.NewReader(b)))
		if whole < 0 || whole > int64(len(b)) {
			t.Fatalf("%d of %d bytes, %v", whole, len(b), err)
		}
		if again, err := records(bufio.NewReader(bytes.NewReader(b[:whole]))); again != whole || err != nil {
			t.Fatalf("%d of %d bytes, %v", again, whole, err)
		}
	})
}

// full is a disk with a limited number of free bytes.
type full struct{ room, has int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return 0, errors.New("no space left on device")
	}
	f.room -= len(p)
	f.has += len(p)
	return len(p), nil
}

// TestFull: a full disk loses frames while it is full, and does nothing else. The log
// tells of it, but not often.
func TestFull(t *testing.T) {
	var log bytes.Buffer
	disk := &full{room: 100}
	l := New(&wire{frame: []byte("frame")}, disk, slog.New(slog.NewTextHandler(&log, nil)))
	var h ethernet.Header
	receive := func() {
		t.Helper()
		if n, err := l.Receive(0, &h, [][]byte{make([]byte, 100)}); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	for range 100_000 {
		receive()
	}
	l.Flush()
	if disk.has != 0 {
		t.Errorf("%d bytes are written", disk.has)
	}
	disk.room = 1 << 20
	receive()
	l.Flush()
	if want := recordHeader + 5; disk.has != want {
		t.Errorf("%d bytes are written once there is room, want %d", disk.has, want)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "no space left") || !strings.Contains(text, `"frames lost"=100000`) {
		t.Errorf("the log: %s", text)
	}
}

// TestNoRoom: a write that does not fit leaves whole records, and later records
// follow them. The process's file size limit plays the full disk.
func TestNoRoom(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.pcap")
	f := begin(t, name)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: fileHeader + recordHeader, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	l := newLink(&wire{}, f)
	var h ethernet.Header
	l.Send(0, &h, [][]byte{[]byte("no room")})
	l.Flush()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	contains(t, name, headerText)
	l.Send(0, &h, [][]byte{[]byte("room")})
	l.Flush()
	contains(t, name, headerText+recordText("room"))
}

// TestTcpdump makes another program read the file.
func TestTcpdump(t *testing.T) {
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("there is no tcpdump")
	}
	name := filepath.Join(t.TempDir(), "out.pcap")
	arp := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2)
	l := newLink(&wire{}, begin(t, name))
	var h ethernet.Header
	l.Send(0, &h, [][]byte{arp})
	l.Flush()
	out, err := exec.Command(path, "-nn", "-r", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "who-has 10.0.2.2 tell 10.0.2.15") {
		t.Errorf("%v: %s", err, out)
	}
}
