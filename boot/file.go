package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"vmm/hostfile"
)

// A file is a regular file named by the user. It is read and never mapped: its owner
// may truncate it at any time.
type file struct {
	*os.File
	what   string // for errors: "kernel", "initrd"
	size   int64
	info   fs.FileInfo
	opened time.Time
}

// openFile opens a file, which must be regular and not empty.
func openFile(held *hostfile.Set, what, path string) (*file, error) {
	if path == "" {
		return nil, &InputError{what, "", errors.New("no path given")}
	}
	// Without O_NONBLOCK, opening a FIFO would block until it has a writer.
	f, err := held.Open(path, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err // the path is in the InputError already
		}
		return nil, &InputError{what, path, err}
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s, not a file", kind(info.Mode()))
	case info.Size() == 0:
		err = errors.New("empty")
	}
	if err != nil {
		f.Close()
		return nil, &InputError{what, path, err}
	}
	return &file{f, what, info.Size(), info, time.Now()}, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// bad returns err as a user error about f.
func (f *file) bad(err error) error {
	if ie := (*InputError)(nil); errors.As(err, &ie) {
		return err
	}
	return &InputError{f.what, f.Name(), err}
}

// readFull fills b from offset off.
func (f *file) readFull(b []byte, off int64) error {
	_, err := f.ReadAt(b, off)
	if err == io.EOF {
		err = errors.New("became shorter while it was read")
	}
	if err != nil {
		return f.bad(err)
	}
	return nil
}

// head returns the first headSize bytes, or the whole file if it is shorter.
func (f *file) head() ([]byte, error) {
	b := make([]byte, min(f.size, headSize))
	return b, f.readFull(b, 0)
}

// magics are files that users mistake for kernels.
var magics = []struct {
	off   int
	magic string
	why   string
}{
	{0, "\x1f\x8b", "compressed with gzip: unpack it first"},
	{0, "\xfd7zXZ\x00", "compressed with xz: unpack it first"},
	{0, "\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"},
	{0, "\x02\x21\x4c\x18", "compressed with lz4: unpack it first"},
	{0, "\x04\x22\x4d\x18", "compressed with lz4: unpack it first"},
	{0, "BZh", "compressed with bzip2: unpack it first"},
	{0, "070701", "an initramfs (cpio): give it as the initrd"},
	{0, "QFI\xfb", "a qcow2 disk image: give it as a disk"},
	{0, "!<arch>\n", "a package or archive: unpack the kernel from it"},
	{257, "ustar", "a tar archive: unpack the kernel from it"},
	{0x38, "ARM\x64", "a kernel for arm64: take one for x86-64"},
	{0x38, "RSC\x05", "a kernel for RISC-V: take one for x86-64"},
	{0, "MZ", "an EFI program: take the kernel itself"},
	{510, "\x55\xaa", "a disk image or boot sector: give it as a disk"},
}

// notKernel returns an error that says what kind of file begins with head.
func notKernel(head []byte) error {
	if hasMultiboot(head) {
		return errMultiboot
	}
	for _, m := range magics {
		if m.off < len(head) && bytes.HasPrefix(head[m.off:], []byte(m.magic)) {
			return fmt.Errorf("not a kernel but %s", m.why)
		}
	}
	if sample := head[:min(len(head), 512)]; printable(string(sample)) == string(sample) {
		return errors.New("not a kernel but text: is it the right file?")
	}
	return errors.New("not a kernel (neither bzImage nor ELF): is it the right file?")
}

// printable returns s up to the first character that is not text.
func printable(s string) string {
	for i, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return s[:i]
		}
	}
	return s
}
