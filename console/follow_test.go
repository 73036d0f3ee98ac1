package console

import (
	"os"
	"testing"
	"time"

	creack "github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

// TestFollow: a process that was in the background when it tried to make the terminal raw,
// and is now in the foreground, does not wait for a signal that never comes.
func TestFollow(t *testing.T) {
	screen, tty, err := creack.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	defer tty.Close()
	term := &terminal{fd: int(tty.Fd()), cont: make(chan os.Signal, 1)}
	ended := make(chan struct{})
	go func() { defer close(ended); term.follow(false) }()
	for end := time.Now().Add(allow.Time(10 * time.Second)); ; time.Sleep(time.Millisecond) {
		tio, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if tio.Lflag&unix.ICANON == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not raw")
		}
	}
	term.restore()
	<-ended
}
