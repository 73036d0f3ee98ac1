package console

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

func TestEscape(t *testing.T) {
	for _, test := range []struct {
		typed, sent string
		commands    []command
	}{
		{"", "", nil},
		{"abc\r\x03\x1a", "abc\r\x03\x1a", nil},
		{"a\x01\x01b", "a\x01b", nil},
		{"\x01\x01x", "\x01x", nil},
		{"\x01xa", "a", []command{cmdQuit}},
		{"a\x01bb", "ab", []command{cmdBreak}},
		{"\x01h\x01?", "", []command{cmdHelp, cmdHelp}},
		{"a\x01db", "ab", []command{cmdDetach}},
		{"\x01qz", "z", nil}, // unknown: both are swallowed
		{"\x01X", "", nil},
		{"a\x01", "a", nil},
		{"\x01\x01\x01x", "\x01", []command{cmdQuit}},
	} {
		var e escape
		var sent []byte
		var commands []command
		for _, b := range []byte(test.typed) {
			switch c := e.key(b); c {
			case cmdSend:
				sent = append(sent, b)
			case cmdSwallow:
			default:
				commands = append(commands, c)
			}
		}
		if string(sent) != test.sent || !equal(commands, test.commands) {
			t.Errorf("%q: sends %q, commands %v; want %q, %v", test.typed, sent, commands, test.sent, test.commands)
		}
	}
}

func equal(a, b []command) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestDetach: the guest gets what was typed before a detach, and nothing after it.
func TestDetach(t *testing.T) {
	left := 0
	k := newKeyboard(Options{Detach: func() { left++ }}, nil)
	k.run(strings.NewReader("ab\x01dcd").Read)
	if b, err := io.ReadAll(k); string(b) != "ab" || err != nil || left != 1 {
		t.Errorf("%q, %v; left %d times", b, err, left)
	}
}

// FuzzKeyboard compares the keyboard, cut into reads of any size, with a plain
// implementation of the rules.
func FuzzKeyboard(f *testing.F) {
	f.Add([]byte("ls\r\x01bx\x01\x01\x01h\x01x"), 3, 2)
	f.Add([]byte("\x01"), 1, 1)
	f.Fuzz(func(t *testing.T, typed []byte, in, out int) {
		in, out = 1+abs(in)%64, 1+abs(out)%64
		if len(typed) > typedSize {
			return // it would wait for the reader
		}
		var got []byte
		quits, helps := 0, 0
		k := newKeyboard(Options{
			Quit:  func() { quits++ },
			Break: func() { got = append(got, "<break>"...) },
		}, func() { helps++ })
		src := bytes.NewReader(typed)
		k.run(func(p []byte) (int, error) { return src.Read(p[:min(len(p), in)]) })
		for {
			p := make([]byte, out)
			n, err := k.Read(p)
			if got = append(got, p[:n]...); err == io.EOF {
				break
			} else if err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if want, q, h := read(string(typed)); string(got) != want || quits != q || helps != h {
			t.Errorf("%q, %d quits, %d helps; want %q, %d, %d", got, quits, helps, want, q, h)
		}
	})
}

// TestTypedAhead: input that the guest does not read is bounded, and not lost.
func TestTypedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789"), typedSize/8)
		k := newKeyboard(Options{}, nil)
		src := bytes.NewReader(want)
		go k.run(src.Read)
		synctest.Wait()
		if n := len(k.typed); n != typedSize {
			t.Errorf("%d bytes are typed ahead, want %d", n, typedSize)
		}
		if got, err := io.ReadAll(k); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
		}

		k = newKeyboard(Options{}, nil)
		src.Reset(want)
		go k.run(src.Read)
		synctest.Wait()
		k.close() // ends run; otherwise synctest fails
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

func read(typed string) (sent string, quits, helps int) {
	for {
		before, rest, found := strings.Cut(typed, "\x01")
		sent += before
		if !found || rest == "" {
			return sent, quits, helps
		}
		switch rest[0] {
		case 1:
			sent += "\x01"
		case 'b':
			sent += "<break>"
		case 'x':
			quits++
		case 'h', '?':
			helps++
		}
		typed = rest[1:]
	}
}
