package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// size prints the terminal's size, and again at each of its next n changes.
func size(n string) error {
	changes, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	for i := 0; ; i++ {
		s, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Printf("SIZE %d x %d\n", s.Col, s.Row)
		if i == changes {
			return nil
		}
		<-c
	}
}

// sendBack sends n bytes back to the port that they come from. While nothing is at the
// other end, reads return EOF.
func sendBack(path, n string) error {
	left, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("PORT-READY")
	for b := make([]byte, 10000); left > 0; {
		k, err := f.Read(b[:min(left, len(b))])
		if err == io.EOF {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err == nil {
			_, err = f.Write(b[:k])
		}
		if err != nil {
			return err
		}
		left -= k
	}
	fmt.Println("PORT-DONE")
	return nil
}
