package console

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// gaps is output into a file of a host whose disk may be full: what there is no room
// for is lost, and once there is room again the file says how much that was, and goes
// on. Anything else that is wrong is an error.
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

// lose counts what was not written of p but for n bytes, if that was for want of room.
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
