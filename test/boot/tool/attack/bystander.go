package attack

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// bystander is what the kernel keeps using meanwhile: a disk, and the entropy device.
type bystander struct {
	disk, rng int // file descriptors
	block     []byte
	random    []byte
	checks    int
	answers   chan error
	stuck     bool
}

// bystanderSalt makes the bystander's content differ from the victim's.
const bystanderSalt = 0x80

func newBystander(name string) (*bystander, error) {
	disk, err := unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/%s: %w", name, err)
	}
	rng, err := unix.Open("/dev/hwrng", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/hwrng: %w", err)
	}
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	return &bystander{disk: disk, rng: rng, block: page[:4096], random: page[4096:], answers: make(chan error, 1)}, nil
}

// check reads a block and some random bytes.
func (b *bystander) check() error {
	if b.stuck {
		return errors.New("the bystander is stuck")
	}
	b.checks++
	block := uint64(b.checks*61) % 2048
	go func() { b.answers <- b.ask(block) }()
	select {
	case err := <-b.answers:
		return err
	case <-time.After(patience):
		b.stuck = true
		return fmt.Errorf("the bystander does not answer in %v", patience)
	}
}

func (b *bystander) ask(block uint64) error {
	if n, err := unix.Pread(b.disk, b.block, int64(block*4096)); n != len(b.block) {
		return fmt.Errorf("the bystander's block %d: %d bytes, %v", block, n, err)
	}
	if !bytes.Equal(b.block, sectors(block*8, 8, bystanderSalt)) {
		return fmt.Errorf("the bystander's block %d has other data", block)
	}
	if n, err := unix.Read(b.rng, b.random[:16]); n <= 0 {
		return fmt.Errorf("/dev/hwrng: %d bytes, %v", n, err)
	}
	return nil
}
