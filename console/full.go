package console

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// gaps writes output to a file whose disk may be full. Output that does not fit is lost.
// Once there is room again, the file says how much was lost, and output continues. Any
// other error is returned.
type gaps struct {
	write func([]byte) (int, error)
	full  func(error) // of Options
	lost  int64       // bytes since there was room
}

// Write implements io.Writer.
func (g *gaps) Write(p []byte) (int, error) {
	if g.lost > 0 {
		if _, err := g.write(fmt.Appendf(nil, "\r\n[vmm: %d bytes of output are missing here]\r\n", g.lost)); err != nil {
			return g.lose(p, 0, err)
		}
		g.lost = 0
	}
	n, err := g.write(p)
	if err != nil {
		return g.lose(p, n, err)
	}
	return n, nil
}

// lose counts the bytes of p beyond the first n as lost, if err is lack of space.
func (g *gaps) lose(p []byte, n int, err error) (int, error) {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.EFBIG) {
		return n, err
	}
	if g.lost == 0 && g.full != nil {
		g.full(err)
	}
	g.lost += int64(len(p) - n)
	return len(p), nil
}
