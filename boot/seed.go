package boot

import (
	"crypto/rand"
	"encoding/binary"

	"vmm/mem"
)

// A node of the setup_data list (x86/boot.rst): the next node's address, a type, the
// length of the data.
const (
	setupRNGSeed = 9 // SETUP_RNG_SEED
	seedLength   = 32
)

// writeSeed gives the kernel random bytes at boot. Linux 6.0 and later reads them
// before it knows any device, and wipes them; older versions skip the node. It returns
// the node's address.
func writeSeed(m *mem.Memory) (mem.Addr, error) {
	le := binary.LittleEndian
	node := le.AppendUint64(nil, 0)
	node = le.AppendUint32(node, setupRNGSeed)
	node = le.AppendUint32(node, seedLength)
	seed := make([]byte, seedLength)
	rand.Read(seed) // never fails
	return seedBase, m.Write(seedBase, append(node, seed...))
}
