// Package initramfs writes the cpio archives that a Linux kernel unpacks into its first
// root file system (the newc format). The same content gives the same bytes: times, owners
// and inode numbers of the build host are left out.
package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"
)

// Archive is the content of an initramfs. The zero Archive is empty.
type Archive struct {
	records []cpio.Record
	place   map[string]int // name -> index in records
}

// Read returns the archive in the file at path.
func Read(path string) (*Archive, error) {
	b, err := os.ReadFile(path) // the whole file, because the records refer to it
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("initramfs %s: %w", path, err)
	}
	a := new(Archive)
	for _, r := range records {
		if r.Name != cpio.Trailer {
			a.add(r)
		}
	}
	return a, nil
}

// File adds or replaces a file, and makes the directories above it.
func (a *Archive) File(name string, mode os.FileMode, content []byte) {
	a.parents(name)
	a.add(cpio.StaticFile(name, string(content), uint64(mode.Perm())))
}

// Link adds or replaces a symbolic link.
func (a *Archive) Link(name, target string) {
	a.parents(name)
	a.add(cpio.Symlink(name, target))
}

// Directory adds a directory.
func (a *Archive) Directory(name string, mode os.FileMode) {
	a.parents(name)
	a.add(cpio.Directory(name, uint64(mode.Perm())))
}

// CharDevice adds a character device.
func (a *Archive) CharDevice(name string, mode os.FileMode, major, minor uint64) {
	a.parents(name)
	a.add(cpio.CharDev(name, uint64(mode.Perm()), major, minor))
}

// parents adds the missing directories above name: the kernel does not make them.
func (a *Archive) parents(name string) {
	dir := filepath.Dir(name)
	if _, ok := a.place[dir]; ok || dir == "." || dir == "/" {
		return
	}
	a.parents(dir)
	a.add(cpio.Directory(dir, 0o755))
}

func (a *Archive) add(r cpio.Record) {
	if i, ok := a.place[r.Name]; ok {
		a.records[i] = r
		return
	}
	if a.place == nil {
		a.place = map[string]int{}
	}
	a.place[r.Name] = len(a.records)
	a.records = append(a.records, r)
}

// Write writes the archive with its trailer.
func (a *Archive) Write(w io.Writer) error {
	out := cpio.Newc.Writer(w)
	for i, r := range a.records {
		r = cpio.MakeReproducible(r)
		r.Ino = uint64(i) + 1
		if err := out.WriteRecord(r); err != nil {
			return fmt.Errorf("initramfs: %s: %w", r.Name, err)
		}
	}
	return cpio.WriteTrailer(out)
}

// WriteFile writes the archive to path. At every moment path holds either the old or the
// new content.
func (a *Archive) WriteFile(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".initramfs-*")
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := a.Write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	return os.Rename(f.Name(), path)
}
