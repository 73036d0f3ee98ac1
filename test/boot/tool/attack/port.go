package attack

import (
	"os"

	"golang.org/x/sys/unix"
)

// A port gives access to the registers of a virtio device, on any transport. Methods
// access the device and check nothing.
type port interface {
	status() uint8
	setStatus(v uint8)
	offered() uint64
	choose(features uint64)
	selectQueue(q uint32)
	queueMax() uint32 // of the selected queue, after a reset
	setSize(n uint32)
	setRings(r rings)
	enable(v uint32)
	isEnabled() bool
	resetQueue()
	resetting() bool
	notify(q uint32)
	interrupts() // reads and acknowledges pending interrupts

	config() region    // the device's own configuration
	registers() region // all others
	addresses() (first, last uint64)
	windows() []place
}

// rings is the physical addresses of a queue's areas.
type rings struct{ desc, driver, device uint64 }

// Status bits, §2.1.
const (
	acknowledge = 1
	driverIs    = 2
	driverOK    = 4
	featuresOK  = 8
	needsReset  = 64
	failed      = 128
)

// Feature bits, §5.2.3 and §6.
const (
	featDiscard     = 1 << 13
	featWriteZeroes = 1 << 14
	featIndirect    = 1 << 28
	featEventIdx    = 1 << 29
	featVersion1    = 1 << 32
	featPacked      = 1 << 34
	featRingReset   = 1 << 40
)

// mapFile maps registers from a file.
func mapFile(path string, off int64, n int) (region, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: path, Err: err}
	}
	return b, nil
}
