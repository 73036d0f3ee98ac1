package fs

import "encoding/binary"

var le = binary.LittleEndian

// struct virtio_fs_config, §5.11.4.
const (
	tagSize    = 36
	configSize = tagSize + 4
)

// ReadConfig implements virtio.Device. A tag as long as its field has no NUL after
// it.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c [configSize]byte
	copy(c[:], d.tag[:])
	le.PutUint32(c[tagSize:], uint32(d.queues))
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. No field is writable.
func (*Device) WriteConfig(uint64, []byte) {}
