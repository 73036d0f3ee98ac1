// Package work keeps every device of a guest busy, and checks whether data is lost,
// duplicated or changed on the way. Tests that disturb a guest run it inside.
package work

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// patience is the time limit of one piece of work.
const patience = 60 * time.Second

// Run works until the file that -until names exists, and prints how often each device
// was used. It also prints numbered lines.
func Run(args []string) error {
	f := flag.NewFlagSet("work", flag.ContinueOnError)
	disk := f.String("disk", "", "block device, whose content is lost")
	share := f.String("share", "", "directory")
	tcp := f.String("tcp", "", "address that sends everything back")
	port := f.Uint("vsock", 0, "port of the host that sends everything back")
	until := f.String("until", "/tmp/enough", "file that ends the work")
	if err := f.Parse(args); err != nil {
		return err
	}
	w := &worker{until: *until}
	if *disk != "" {
		w.start("disk", onDisk(*disk))
	}
	if *share != "" {
		w.start("share", onShare(*share))
	}
	if *tcp != "" {
		w.start("tcp", over(func() (net.Conn, error) { return net.Dial("tcp", *tcp) }))
	}
	if *port != 0 {
		w.start("vsock", over(func() (net.Conn, error) { return vsock.Dial(vsock.Host, uint32(*port), nil) }))
	}
	w.start("rng", onRandom())
	w.start("lines", printLine)
	w.start("clock", clock())
	w.all.Wait()
	for name, n := range w.counts {
		fmt.Printf("WORK-COUNT %s %d\n", name, n)
	}
	if err := errors.Join(w.errs...); err != nil {
		return err
	}
	fmt.Println("WORK-DONE")
	return nil
}

// worker runs several kinds of work concurrently.
type worker struct {
	until string
	all   sync.WaitGroup

	mu     sync.Mutex
	counts map[string]int // guarded by mu
	errs   []error        // guarded by mu
}

// start repeats one kind of work. f gets the number of the repetition.
func (w *worker) start(name string, f func(i int) error) {
	w.all.Go(func() {
		i := 0
		var err error
		for ; err == nil; i++ {
			if _, there := os.Stat(w.until); there == nil && i > 0 {
				break
			}
			err = f(i)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.counts == nil {
			w.counts = map[string]int{}
		}
		w.counts[name] = i
		if err != nil {
			w.errs = append(w.errs, fmt.Errorf("%s, time %d: %w", name, i, err))
			os.WriteFile(w.until, nil, 0o600) // the others can stop
		}
	})
}

// content returns n bytes that are unique to the seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(b)
	return b
}

// onDisk writes blocks past the page cache, and reads them and older ones.
func onDisk(path string) func(i int) error {
	const size, blocks = 64 << 10, 32
	var fd int
	var buf []byte
	return func(i int) (err error) {
		if i == 0 {
			if fd, err = unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0); err != nil {
				return err
			}
			if buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
				return err
			}
		}
		copy(buf, content(uint64(i), size))
		if n, err := unix.Pwrite(fd, buf, int64(i%blocks)*size); n != size {
			return fmt.Errorf("wrote %d: %w", n, err)
		}
		if i%8 == 0 {
			if err := unix.Fdatasync(fd); err != nil {
				return err
			}
		}
		old := max(i-i%7, i-blocks+1, 0)
		if n, err := unix.Pread(fd, buf, int64(old%blocks)*size); n != size {
			return fmt.Errorf("read %d: %w", n, err)
		}
		if !bytes.Equal(buf, content(uint64(old), size)) {
			return fmt.Errorf("block %d of time %d has other data", old%blocks, old)
		}
		return nil
	}
}

// onShare makes a file, reads it under another name, and removes it.
func onShare(dir string) func(i int) error {
	return func(i int) error {
		path := filepath.Join(dir, fmt.Sprintf("work-%d", i))
		want := content(uint64(i)+1<<20, 1+i*4099%(256<<10))
		if err := os.WriteFile(path, want, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path, path+".moved"); err != nil {
			return err
		}
		got, err := os.ReadFile(path + ".moved")
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%d bytes are %d others", len(want), len(got))
		}
		return errors.Join(err, os.Remove(path+".moved"))
	}
}

// over sends bytes over a connection that sends them back; now and then it makes a new
// one.
func over(dial func() (net.Conn, error)) func(i int) error {
	var c net.Conn
	return func(i int) (err error) {
		if i%16 == 0 {
			if c != nil {
				c.Close()
			}
			if c, err = dial(); err != nil {
				return err
			}
		}
		c.SetDeadline(time.Now().Add(patience))
		want := content(uint64(i)+2<<20, 1+i*7919%(128<<10))
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(want)
			sent <- err
		}()
		got := make([]byte, len(want))
		_, err = io.ReadFull(c, got)
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("other bytes come back")
		}
		return errors.Join(err, <-sent)
	}
}

func onRandom() func(i int) error {
	var last [16]byte
	return func(int) error {
		f, err := os.Open("/dev/hwrng")
		if err != nil {
			return err
		}
		defer f.Close()
		var b [16]byte
		if _, err := io.ReadFull(f, b[:]); err != nil {
			return err
		}
		if b == last {
			return errors.New("twice the same")
		}
		last = b
		return nil
	}
}

// printLine prints its number; the host checks that the console shows all lines.
func printLine(i int) error {
	fmt.Printf("WORK-LINE %d\n", i)
	time.Sleep(20 * time.Millisecond)
	return nil
}

// clock checks that time goes forward, in plausible steps.
func clock() func(i int) error {
	last := time.Now()
	return func(int) error {
		time.Sleep(5 * time.Millisecond)
		now := time.Now()
		if d := now.Sub(last); d <= 0 || d > patience {
			return fmt.Errorf("the clock moves by %v", d)
		}
		last = now
		return nil
	}
}
