package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/mdlayher/vsock"

	"vmm/test/boot/pattern"
)

// overVsock runs the commands that begin with vsock-:
//
//	vsock-echo PORT          sends back what arrives on a port, forever
//	vsock-dial PORT N BYTES  calls the host N times at once, and sends BYTES of the
//	                         pattern on each, which must come back
func overVsock(what string, args []string) error {
	if len(args) == 0 {
		return errors.New("no port")
	}
	port, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	switch {
	case what == "vsock-echo":
		return echo(uint32(port))
	case what == "vsock-dial" && len(args) == 3:
		n, _ := strconv.Atoi(args[1])
		size, _ := strconv.Atoi(args[2])
		return dial(uint32(port), n, size)
	}
	return fmt.Errorf("no command %q", what)
}

func echo(port uint32) error {
	l, err := vsock.Listen(port, nil)
	if err != nil {
		return err
	}
	fmt.Println("VSOCK-READY")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			c.(*vsock.Conn).CloseWrite()
		}()
	}
}

// atOnce is the number of concurrent calls: Linux gives each two seconds, and the lab
// is slow.
const atOnce = 20

// dial opens all connections before the first byte, and closes none before all
// bytes are back.
func dial(port uint32, n, size int) error {
	conns := make([]*vsock.Conn, n)
	errs := make([]error, n)
	calls := make(chan struct{}, atOnce)
	each(n, func(i int) {
		calls <- struct{}{}
		conns[i], errs[i] = vsock.Dial(vsock.Host, port, nil)
		<-calls
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	data := pattern.Bytes(size)
	each(n, func(i int) { errs[i] = there(conns[i], data) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	fmt.Printf("VSOCK-DONE %d\n", n)
	return errors.Join(errs...)
}

// there sends data, ends that direction, and checks what comes back.
func there(c *vsock.Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	back, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(back, data) {
		err = fmt.Errorf("%d bytes came back of %d", len(back), len(data))
	}
	return errors.Join(err, <-sent)
}

func each(n int, f func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
