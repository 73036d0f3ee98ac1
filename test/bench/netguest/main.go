// Netguest runs inside the guest of the network benchmarks (docs/bench.md), over TCP
// or, with the argument vsock, over vsock. It prints the same lines as blkguest: a
// phase's operations are bytes, and round trips in the last.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/mdlayher/vsock"
)

const (
	host   = "10.0.2.2"
	settle = 500 * time.Millisecond // not counted
	limit  = 2 * time.Second
)

func main() {
	for _, p := range []struct {
		name string
		port int
		step func(net.Conn) (int, error) // returns the number of operations
	}{
		{"out", 7001, writer()},
		{"in", 7002, reader()},
		{"rtt", 7003, trip()},
	} {
		if err := run(p.name, p.port, p.step); err != nil {
			fmt.Println("BENCH-FAILED", p.name, err)
			os.Exit(1)
		}
	}
	fmt.Println("BENCH-DONE")
}

func writer() func(net.Conn) (int, error) {
	b := make([]byte, 1<<17)
	return func(c net.Conn) (int, error) { return c.Write(b) }
}

func reader() func(net.Conn) (int, error) {
	b := make([]byte, 1<<17)
	return func(c net.Conn) (int, error) { return c.Read(b) }
}

func trip() func(net.Conn) (int, error) {
	b := make([]byte, 1)
	return func(c net.Conn) (int, error) {
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		return io.ReadFull(c, b)
	}
}

func run(name string, port int, step func(net.Conn) (int, error)) error {
	c, err := dial(port)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := loop(c, step, settle); err != nil {
		return err
	}
	fmt.Printf("BENCH-BEGIN %s\n", name)
	operations, took, err := loop(c, step, limit)
	if err != nil {
		return err
	}
	fmt.Printf("BENCH-END %s %d %d\n", name, operations, took.Nanoseconds())
	return nil
}

// dial waits for the network to come up.
func dial(port int) (c net.Conn, err error) {
	for range 50 {
		if len(os.Args) > 1 && os.Args[1] == "vsock" {
			c, err = vsock.Dial(vsock.Host, uint32(port), nil)
		} else {
			c, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", host, port), 5*time.Second)
		}
		if err == nil {
			return c, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, err
}

func loop(c net.Conn, step func(net.Conn) (int, error), limit time.Duration) (operations int, took time.Duration, err error) {
	began := time.Now()
	for took < limit {
		n, err := step(c)
		if err != nil {
			return 0, 0, err
		}
		operations += n
		took = time.Since(began)
	}
	return operations, took, nil
}
