package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"vmm/test/allow"
)

func TestInput(t *testing.T) {
	for _, test := range []struct{ in, out, size string }{
		{"ls\r\x00pwd\r\nx", "ls\rpwd\rx", ""},
		{"a\xff\xffb", "a\xffb", ""},
		{"\xff\xfd\x01\xff\xfb\x1fx\xff\xf1y", "xy", ""},
		{"a\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0b", "ab", "80x24"},
		{"\xff\xfa\x1f\x00\xff\xff\x00\x18\xff\xf0", "", "255x24"},
		{"\xff\xfa\x1f\x00\x50\x00\xff\xf0ab", "ab", ""},
		{"\xff\xfa" + strings.Repeat("z", 10000) + "\xff\xf0b", "b", ""},
		{"a\xff", "a", ""},
	} {
		for _, one := range []bool{false, true} {
			size := ""
			r := io.Reader(strings.NewReader(test.in))
			if one {
				r = iotest.OneByteReader(r)
			}
			in := &input{r: bufio.NewReader(r), resize: func(c, r uint16) { size = itoa(c) + "x" + itoa(r) }}
			got, _ := io.ReadAll(in)
			if one { // then a CR is read without what follows it
				got = bytes.ReplaceAll(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\r")), []byte{0}, nil)
			}
			if string(got) != test.out || size != test.size {
				t.Errorf("%q: %q, size %q", test.in, got, size)
			}
		}
	}
}

func itoa(n uint16) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

// TestSession types into a shell and waits for its end.
func TestSession(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serve(l, telnet, "/bin/sh")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(allow.Time(10 * time.Second)))
	io.WriteString(c, "\xff\xfa\x1f\x00\x63\x00\x21\xff\xf0stty size; echo do''ne; exit\r\n")
	out, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(out, greeting) || !strings.Contains(string(out), "33 99\r\n") || !strings.Contains(string(out), "done\r\n") {
		t.Errorf("%v: %q", err, out)
	}
}
