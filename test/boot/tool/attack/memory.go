package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

// Layout of our memory. Devices get these addresses, addresses without RAM, and the end
// of RAM, which the kernel was told not to use: never a page of the kernel.
const (
	atDesc   = 0x00000 // the queue: descriptor area,
	atDriver = 0x02000 // driver area
	atDevice = 0x04000 // and device area
	atHeader = 0x06000 // headers of requests, 16 bytes each
	atStatus = 0x07000 // their status bytes
	atTable  = 0x08000 // indirect tables, and segments of discards
	atOther  = 0x20000 // a second queue
	atCanary = 0x30000 // memory that no descriptor names
	atData   = 0x40000

	canaryLen  = 0x10000
	dataLen    = 1 << 20
	memorySize = 2 << 20
)

// memory is 2 MiB of contiguous RAM that the kernel does not move: a huge page.
type memory struct {
	region
	phys   uint64
	canary []byte
}

func newMemory() (*memory, error) {
	if err := os.WriteFile("/proc/sys/vm/nr_hugepages", []byte("2"), 0); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(-1, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_POPULATE|unix.MAP_LOCKED)
	if err != nil {
		return nil, fmt.Errorf("a huge page: %w", err)
	}
	m := &memory{region: b, canary: bytes.Repeat([]byte("canary!\n"), canaryLen/8)}
	copy(m.region[atCanary:], m.canary)
	m.phys, err = physical(m.virtual())
	return m, err
}

// physical looks up a page in /proc/self/pagemap.
func physical(virtual uint64) (uint64, error) {
	const present, frame = 1 << 63, 1<<55 - 1
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [8]byte
	if _, err := f.ReadAt(b[:], int64(virtual/4096*8)); err != nil {
		return 0, err
	}
	v := le.Uint64(b[:])
	if v&present == 0 || v&frame == 0 {
		return 0, errors.New("/proc/self/pagemap does not tell the address of our memory")
	}
	return v & frame * 4096, nil
}

// clear zeroes the memory of queues, requests and tables.
func (m *memory) clear() { clear(m.region[:atOther]) }

// intact reports whether the memory that no descriptor names is unchanged.
func (m *memory) intact() bool {
	return bytes.Equal(m.region[atCanary:atCanary+canaryLen], m.canary)
}
