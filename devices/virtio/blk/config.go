package blk

import (
	"encoding/binary"
	"math"
	"math/bits"
)

var le = binary.LittleEndian

// Feature bits, §5.2.3.
const (
	featureSizeMax     = 1 << 1  // VIRTIO_BLK_F_SIZE_MAX
	featureSegMax      = 1 << 2  // VIRTIO_BLK_F_SEG_MAX
	featureRO          = 1 << 5  // VIRTIO_BLK_F_RO
	featureBlkSize     = 1 << 6  // VIRTIO_BLK_F_BLK_SIZE
	featureFlush       = 1 << 9  // VIRTIO_BLK_F_FLUSH
	featureTopology    = 1 << 10 // VIRTIO_BLK_F_TOPOLOGY
	featureMQ          = 1 << 12 // VIRTIO_BLK_F_MQ
	featureDiscard     = 1 << 13 // VIRTIO_BLK_F_DISCARD
	featureWriteZeroes = 1 << 14 // VIRTIO_BLK_F_WRITE_ZEROES
)

// struct virtio_blk_config, §5.2.4: offsets of the fields in use.
const (
	configCapacity               = 0
	configSizeMax                = 8
	configSegMax                 = 12
	configBlkSize                = 20
	configPhysicalBlockExp       = 24
	configMinIOSize              = 26
	configOptIOSize              = 28
	configNumQueues              = 34
	configMaxDiscardSectors      = 36
	configMaxDiscardSeg          = 40
	configDiscardSectorAlignment = 44
	configMaxWriteZeroesSectors  = 48
	configMaxWriteZeroesSeg      = 52
	configWriteZeroesMayUnmap    = 56
	configSize                   = 72
)

const (
	sectorSize = 512
	maxQueues  = 1024
	idBytes    = 20 // VIRTIO_BLK_ID_BYTES

	// segMax leaves room for the header and the status byte.
	segMax = queueSize - 2

	// sizeMax is such that a driver that respects it never reaches maxBytes.
	sizeMax = 256 << 10

	// maxBytes bounds one request. The buffers of a chain may overlap: without a
	// bound, 254 descriptors that each name all of RAM would make one request move
	// hundreds of gigabytes, and reset and pause wait for it to end.
	maxBytes = 64 << 20

	// A segment is one host call, which cannot be interrupted. So segment sizes are
	// bounded, and the number of segments per request. A host without a better way
	// writes the zeroes, so their limits are lower.
	maxDiscardSectors     = 1 << 30 / sectorSize
	maxDiscardSeg         = 64
	maxWriteZeroesSectors = maxBytes / sectorSize
	maxWriteZeroesSeg     = 1
)

// features returns what a device with this image offers.
func features(image Image, queues int) uint64 {
	f := uint64(featureSizeMax | featureSegMax | featureBlkSize | featureTopology | featureFlush)
	if image.ReadOnly() {
		f |= featureRO
	} else {
		f |= featureDiscard | featureWriteZeroes
	}
	if queues > 1 {
		f |= featureMQ
	}
	return f
}

func newConfig(image Image, queues int) (c [configSize]byte) {
	logical, physical, minIO, optIO := image.Topology()
	physical = max(physical, logical)
	put16 := func(off, v int) { le.PutUint16(c[off:], uint16(min(v, math.MaxUint16))) }
	put32 := func(off, v int) { le.PutUint32(c[off:], uint32(v)) }
	le.PutUint64(c[configCapacity:], uint64(image.Size()/sectorSize))
	put32(configSizeMax, sizeMax)
	put32(configSegMax, segMax)
	put32(configBlkSize, logical)
	c[configPhysicalBlockExp] = byte(bits.Len(uint(physical/logical)) - 1)
	put16(configMinIOSize, minIO/logical)
	put32(configOptIOSize, optIO/logical)
	put16(configNumQueues, queues)
	if !image.ReadOnly() {
		put32(configMaxDiscardSectors, maxDiscardSectors)
		put32(configMaxDiscardSeg, maxDiscardSeg)
		put32(configDiscardSectorAlignment, physical/sectorSize)
		put32(configMaxWriteZeroesSectors, maxWriteZeroesSectors)
		put32(configMaxWriteZeroesSeg, maxWriteZeroesSeg)
		c[configWriteZeroesMayUnmap] = 1
	}
	return c
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	if off < configSize {
		copy(p, d.config[off:])
	}
}

// WriteConfig implements virtio.Device. No field is writable.
func (*Device) WriteConfig(uint64, []byte) {}
