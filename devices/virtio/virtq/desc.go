package virtq

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vmm/mem"
)

// Flags of descriptors, §2.7.5 and §2.8.
const (
	descNext     = 1 << 0  // VIRTQ_DESC_F_NEXT
	descWrite    = 1 << 1  // VIRTQ_DESC_F_WRITE
	descIndirect = 1 << 2  // VIRTQ_DESC_F_INDIRECT
	descAvail    = 1 << 7  // VIRTQ_DESC_F_AVAIL, packed
	descUsed     = 1 << 15 // VIRTQ_DESC_F_USED, packed
)

const descSize = 16

var le = binary.LittleEndian

var (
	errIndirect = errors.New("an indirect table that was not negotiated")
	errMixed    = errors.New("INDIRECT and NEXT together")
)

// indirect returns the table of an indirect descriptor, §2.7.5.3 and §2.8.7. Each
// ring type checks where such a descriptor may stand.
func indirect(m *mem.Memory, f Format, addr mem.Addr, n uint32) ([]byte, error) {
	if !f.Indirect {
		return nil, errIndirect
	}
	if n == 0 || n%descSize != 0 {
		return nil, fmt.Errorf("an indirect table of %d bytes", n)
	}
	return m.Slice(addr, uint64(n))
}
