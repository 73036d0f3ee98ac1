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

// A File records frames of one or more links, one after another or at once: each writes
// whole records at the end of the file.
type File struct {
	f *os.File

	mu   sync.Mutex
	end  int64 // guarded by mu; end of the part known to be whole records
	torn bool  // guarded by mu; a partial record follows end
}

// Sizes of the file header, and of the header of each frame.
const (
	fileHeader   = 24
	recordHeader = 16
)

// NewFile takes over f, which was opened for reading and appending, until Close. It
// must be regular, and empty or a recording made by vmm, which is continued.
func NewFile(f *os.File) (*File, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a file")
	}
	// Of two programs writing at once, each could cut off the other's half-written
	// record as unfinished. Not every file system has locks.
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == unix.EAGAIN || err == unix.EACCES {
		return nil, errors.New("is in use: choose another")
	}
	return &File{f: f}, nil
}

// Close closes the file. No link may write to it afterwards.
func (f *File) Close() error { return f.f.Close() }

// Write writes whole records. If it fails, it leaves none of them in the file, which
// stays intact.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mend(); err != nil {
		return 0, err
	}
	n, err := f.f.Write(p)
	if err != nil {
		f.torn = n > 0
		f.mend() // else the next call does
		return 0, err
	}
	f.end += int64(n)
	return n, nil
}

// mend cuts off a partial record. mu is held.
func (f *File) mend() error {
	if !f.torn {
		return nil
	}
	err := f.f.Truncate(f.end)
	f.torn = err != nil
	return err
}

// Begin makes the file ready for a link. It cuts off an unfinished last record. No link
// may write meanwhile.
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

// records returns the total size of the whole records at the start of r.
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
