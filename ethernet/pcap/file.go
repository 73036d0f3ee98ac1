package pcap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A File is what frames are recorded in, by one link or several, one after another
// or at once: each writes whole records at the file's end.
type File struct {
	f   *os.File
	end int64 // what is known to be whole records
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

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) { return f.f.Write(p) }

// Begin makes the file ready for a link. A record that was not written to its end,
// for want of room or of time, is cut off. Nobody may write meanwhile.
func (f *File) Begin() error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size == 0 {
		n, err := f.f.Write(header())
		f.end = int64(n)
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
