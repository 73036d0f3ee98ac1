package pcap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmm/ethernet"
)

// wire gives one frame, and takes all but what it is busy for.
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

func newLink(t *testing.T, w *wire, to interface{ Write([]byte) (int, error) }) *Link {
	t.Helper()
	l, err := New(w, to, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return time.Unix(0x11223344, 0x0102) }
	return l
}

// TestFile: the bytes of a file with a frame each way.
func TestFile(t *testing.T) {
	var file bytes.Buffer
	w := &wire{frame: []byte("received")}
	l := newLink(t, w, &file)
	var h ethernet.Header
	l.Send(0, &h, [][]byte{[]byte("se"), []byte("nt")})
	l.Receive(0, &h, [][]byte{make([]byte, 3), make([]byte, 100)})
	w.err = ethernet.ErrAgain
	l.Send(0, &h, [][]byte{[]byte("not now")})
	l.Receive(0, &h, [][]byte{make([]byte, 100)})
	w.err = errors.New("lost")
	l.Send(0, &h, [][]byte{[]byte("lost")}) // it was on the wire all the same
	l.Flush()
	want := "4d3cb2a1" + "02000400" + "00000000" + "00000000" + "00000400" + "01000000" +
		"44332211" + "02010000" + "04000000" + "04000000" + hex.EncodeToString([]byte("sent")) +
		"44332211" + "02010000" + "08000000" + "08000000" + hex.EncodeToString([]byte("received")) +
		"44332211" + "02010000" + "04000000" + "04000000" + hex.EncodeToString([]byte("lost"))
	if got := hex.EncodeToString(file.Bytes()); got != want {
		t.Errorf("the file is\n%s, want\n%s", got, want)
	}
}

// full is a disk that has room for so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// TestFull: a full disk ends the recording, and nothing else.
func TestFull(t *testing.T) {
	if _, err := New(&wire{}, new(full), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file without room for its header is taken")
	}
	room := full(100)
	l := newLink(t, &wire{frame: []byte("frame")}, &room)
	var h ethernet.Header
	for range 100_000 {
		if n, err := l.Receive(0, &h, [][]byte{make([]byte, 100)}); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	l.Flush()
	if l.w != nil {
		t.Error("the recording goes on")
	}
}

// TestTcpdump has another program read the file.
func TestTcpdump(t *testing.T) {
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("there is no tcpdump")
	}
	name := filepath.Join(t.TempDir(), "out.pcap")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	arp := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2)
	l := newLink(t, &wire{}, file)
	var h ethernet.Header
	l.Send(0, &h, [][]byte{arp})
	l.Flush()
	out, err := exec.Command(path, "-nn", "-r", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "who-has 10.0.2.2 tell 10.0.2.15") {
		t.Errorf("%v: %s", err, out)
	}
}
