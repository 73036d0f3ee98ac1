package pcap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A File is what frames are recorded in, by one link or several, one after another
// or at once: each writes whole records at the file's end.
type File struct {
	f *os.File

	mu   sync.Mutex
	end  int64 // guarded by mu; what is known to be whole records
	torn bool  // guarded by mu; there is a part of one behind it
}

// The sizes of what the format has before all, and before each frame.
const (
	fileHeader   = 24
	recordHeader = 16
)

// NewFile takes f, which was opened for reading and appending, until it is closed.
// It must be regular, and empty or a recording of ours: that goes on at its end.
func NewFile(f *os.File) (*File, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a file")
	}
	// Two programs that write at once would each take the other's last record, half
	// written, for one that was never finished. Not every file system has locks.
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == unix.EAGAIN || err == unix.EACCES {
		return nil, errors.New("is in use: choose another")
	}
	return &File{f: f}, nil
}

// Close closes the file. No link may write to it any more.
func (f *File) Close() error { return f.f.Close() }

// Write writes whole records. If it fails, nothing of them is left in the file, which
// is as good as before.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mend(); err != nil {
		return 0, err
	}
	n, err := f.f.Write(p)
	if err != nil {
		f.torn = n > 0
		f.mend() // or before the next
		return 0, err
	}
	f.end += int64(n)
	return n, nil
}

// mend cuts off what was not written to its end. mu is held.
func (f *File) mend() error {
	if !f.torn {
		return nil
	}
	err := f.f.Truncate(f.end)
	f.torn = err != nil
	return err
}

// Begin makes the file ready for a link. A record that was not written to its end,
// for want of time, is cut off. Nobody may write meanwhile.
func (f *File) Begin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mend(); err != nil {
		return err
	}
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size == 0 {
		n, err := f.f.Write(header())
		if err != nil && n > 0 {
			err = errors.Join(err, f.f.Truncate(0))
		} else if err == nil {
			f.end = fileHeader
		}
		return err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f.f, f.end, size-f.end), 1<<16)
	if f.end == 0 {
		var h [fileHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil || [fileHeader]byte(header()) != h {
			return errors.New("is no recording of vmm's: remove it or choose another")
		}
		f.end = fileHeader
	}
	whole, err := records(r)
	f.end += whole
	if err != nil {
		return fmt.Errorf("is damaged at byte %d: %w: remove it or choose another", f.end, err)
	}
	if f.end < size {
		return f.f.Truncate(f.end)
	}
	return nil
}

func header() []byte {
	h := make([]byte, fileHeader)
	le.PutUint32(h[0:], magic)
	le.PutUint16(h[4:], 2) // version 2.4
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], snapLength)
	le.PutUint32(h[20:], linkEthernet)
	return h
}

// records returns how many bytes the whole records have that r begins with.
func records(r *bufio.Reader) (whole int64, err error) {
	for {
		h, err := r.Peek(recordHeader)
		if err == io.EOF {
			return whole, nil
		} else if err != nil {
			return whole, err
		}
		n := le.Uint32(h[8:])
		if n > snapLength {
			return whole, fmt.Errorf("a frame of %d bytes", n)
		}
		switch k, err := r.Discard(recordHeader + int(n)); {
		case err == io.EOF:
			return whole, nil
		case err != nil:
			return whole, err
		default:
			whole += int64(k)
		}
	}
}
