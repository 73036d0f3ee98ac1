package machine

import (
	"errors"
	"fmt"
	"strings"

	"vmm/devices/virtio/blk"
	"vmm/disk"
)

// Disk is a virtio block device and its storage.
type Disk struct {
	Path     string // a raw image or a block device
	ReadOnly bool   `json:",omitempty"`
	Direct   bool   `json:",omitempty"` // bypasses the host's page cache (O_DIRECT)
	Serial   string `json:",omitempty"` // up to 20 bytes
	Queues   int    `json:",omitempty"` // 0 means 1
}

// MaxDisks and MaxDiskQueues bound a Config.
const (
	MaxDisks      = 16
	MaxDiskQueues = 64
	maxSerial     = 20 // VIRTIO_BLK_ID_BYTES
)

func (d *Disk) validate() error {
	switch {
	case d.Path == "":
		return errors.New("no path")
	case d.Queues < 0 || d.Queues > MaxDiskQueues:
		return fmt.Errorf("%s: %d queues; a disk has 1 to %d", d.Path, d.Queues, MaxDiskQueues)
	case len(d.Serial) > maxSerial:
		return fmt.Errorf("%s: serial %q is longer than %d bytes", d.Path, d.Serial, maxSerial)
	case strings.ContainsFunc(d.Serial, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%s: serial %q has characters other than printable ASCII", d.Path, d.Serial)
	}
	return nil
}

// openDisks creates a device for each disk of the Config.
func (m *Machine) openDisks() error {
	for _, c := range m.config.Disks {
		image, err := disk.Open(c.Path, disk.Options{ReadOnly: c.ReadOnly, Direct: c.Direct, Held: m.files.set})
		if err != nil {
			return &DiskError{err}
		}
		p := m.newPart("disk %s", c.Path)
		p.opened(image.Close)
		m.devices.images = append(m.devices.images, image)
		d, err := blk.New(image, blk.Config{Serial: c.Serial, Queues: c.Queues, Owner: m.panicked, Log: m.log.With("disk", c.Path)})
		if err != nil {
			return err
		}
		if err := m.addVirtio(p, d, classStorage); err != nil {
			return err
		}
	}
	return nil
}

// DiskError says that a disk of the Config cannot be used. The user must fix it.
type DiskError struct{ Err error }

func (e *DiskError) Error() string { return e.Err.Error() }
func (e *DiskError) Unwrap() error { return e.Err }
