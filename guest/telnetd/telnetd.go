// Telnetd is a telnet server (RFC 854) for guests in tests and lessons: each connection
// gets a shell on a terminal, without a password.
//
//	telnetd [ADDRESS]      as in :23, which is the default
//	telnetd vsock:PORT     the same for the host, without telnet's commands
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
)

// Commands and options, RFC 854, 857, 858 and 1073.
const (
	iac, dont, do, wont, will, sb, se = 255, 254, 253, 252, 251, 250, 240

	optEcho, optSuppressGoAhead, optWindowSize = 1, 3, 31
)

// greeting tells the client to send each key as it is typed, and its window size.
var greeting = []byte{iac, will, optEcho, iac, will, optSuppressGoAhead, iac, do, optWindowSize}

func main() {
	address := ":23"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	var l net.Listener
	var err error
	speaks := telnet
	if port, ok := strings.CutPrefix(address, "vsock:"); ok {
		l, err = listenVsock(port)
		speaks = plain
	} else {
		l, err = net.Listen("tcp", address)
	}
	if err == nil {
		err = serve(l, speaks, "/bin/sh")
	}
	fmt.Fprintln(os.Stderr, "telnetd:", err)
	os.Exit(1)
}

func listenVsock(port string) (net.Listener, error) {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return nil, err
	}
	return vsock.Listen(uint32(n), nil)
}

// telnet is the telnet protocol.
func telnet(c net.Conn, resize func(columns, rows uint16)) (io.Reader, io.Writer, error) {
	_, err := c.Write(greeting)
	return &input{r: bufio.NewReader(c), resize: resize}, escape{c}, err
}

// escape doubles the byte that begins a command.
type escape struct{ io.Writer }

func (e escape) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+8)
	for _, b := range p {
		if out = append(out, b); b == iac {
			out = append(out, b)
		}
	}
	if _, err := e.Writer.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// input is what was typed: the stream without the commands.
type input struct {
	r      *bufio.Reader
	resize func(columns, rows uint16)
}

// Read implements io.Reader. It returns available input instead of waiting for more.
func (in *input) Read(p []byte) (n int, err error) {
	for n < len(p) && (n == 0 || in.r.Buffered() > 0) {
		b, err := in.r.ReadByte()
		if err != nil {
			return n, err
		}
		switch b {
		case iac:
			literal, err := in.command()
			if err != nil {
				return n, err
			}
			if !literal {
				continue
			}
		case '\r': // a newline is CR LF or CR NUL
			if next, err := in.r.Peek(1); in.r.Buffered() > 0 && err == nil && (next[0] == 0 || next[0] == '\n') {
				in.r.Discard(1)
			}
		}
		p[n] = b
		n++
	}
	return n, nil
}

// command reads a command after its first byte. It reports whether the command was that
// byte itself, escaped.
func (in *input) command() (literal bool, err error) {
	kind, err := in.r.ReadByte()
	switch {
	case err != nil || kind == iac:
		return true, err
	case kind >= will && kind <= dont:
		_, err = in.r.ReadByte()
		return false, err
	case kind == sb:
		return false, in.option()
	}
	return false, nil
}

// option reads a subnegotiation to its end. One that is longer than the known ones is
// ignored.
func (in *input) option() error {
	var body [5]byte
	for n := 0; ; n++ {
		b, err := in.r.ReadByte()
		if err == nil && b == iac {
			if b, err = in.r.ReadByte(); err == nil && b == se {
				if n == len(body) && body[0] == optWindowSize {
					in.resize(uint16(body[1])<<8|uint16(body[2]), uint16(body[3])<<8|uint16(body[4]))
				}
				return nil
			}
		}
		if err != nil {
			return err
		}
		if n < len(body) {
			body[n] = b
		}
	}
}
