package virtq

import (
	"errors"

	"vmm/mem"
)

// A Chain is one request of the driver: bytes for the device to read, then room for
// it to write. How they are split into buffers means nothing (§2.7.4.1). No buffer is
// empty, but a list may be.
//
// From Pop to Push the chain belongs to its popper, which may use it on any
// goroutine, one at a time, and change the two lists. The buffers alias guest memory,
// which the guest may change at any time: copy what must not change between check and
// use. They may overlap each other and the rings.
type Chain struct {
	Readable [][]byte
	Writable [][]byte

	queue    *Queue
	popped   bool
	id       uint16   // split: index of the head; packed: buffer ID
	slots    uint16   // packed: ring descriptors that it takes
	from     uint16   // where in the ring it was taken: avail, or a position
	descs    int      // descriptors added
	bufs     [][]byte // what Readable and Writable are slices of
	readable int      // how many of bufs
	total    uint64   // bytes, readable and writable
	writable uint64   // bytes
	cut      [][]byte // backs the slices that CutFirst and CutLast return
}

// ReadableLen returns the number of bytes in Readable.
func (c *Chain) ReadableLen() uint64 { return length(c.Readable) }

// WritableLen returns the number of bytes in Writable.
func (c *Chain) WritableLen() uint64 { return length(c.Writable) }

// Read moves bytes from the front of Readable to p and returns how many: fewer than
// len(p) only if no more are left.
func (c *Chain) Read(p []byte) int {
	n := 0
	for n < len(p) && len(c.Readable) > 0 {
		k := copy(p[n:], c.Readable[0])
		c.Readable = advance(c.Readable, k)
		n += k
	}
	return n
}

// ReadFull fills p from the front of Readable. If there are too few bytes it takes
// none and returns false.
func (c *Chain) ReadFull(p []byte) bool {
	have := 0
	for i := 0; have < len(p); i++ {
		if i == len(c.Readable) {
			return false
		}
		have += len(c.Readable[i])
	}
	c.Read(p)
	return true
}

// Write copies p to the front of Writable and removes what it filled. It returns the
// number of bytes copied: fewer than len(p) only if no more room is left.
func (c *Chain) Write(p []byte) int {
	n := 0
	for n < len(p) && len(c.Writable) > 0 {
		k := copy(c.Writable[0], p[n:])
		c.Writable = advance(c.Writable, k)
		n += k
	}
	return n
}

// CutLast removes the last n bytes of Writable and returns them, in one or more
// buffers. If there are fewer, it returns nil and removes nothing. They are a
// device's trailer, to be written before Push.
func (c *Chain) CutLast(n int) [][]byte {
	w := c.Writable
	i, left := len(w), n
	for left > 0 {
		if i == 0 {
			return nil
		}
		i--
		left -= len(w[i])
	}
	start := len(c.cut)
	c.cut = append(c.cut, w[i:]...)
	if stay := -left; stay > 0 { // of buffer i
		c.cut[start] = w[i][stay:]
		w[i] = w[i][:stay:stay]
		i++
	}
	c.Writable = w[:i]
	return c.cut[start:len(c.cut):len(c.cut)]
}

// CutFirst removes the first n bytes of Writable and returns them, in one or more
// buffers. If there are fewer, it returns nil and removes nothing. They are a
// device's header, to be written before Push.
func (c *Chain) CutFirst(n int) [][]byte {
	w := c.Writable
	i, left := 0, n
	for ; left > 0; i++ {
		if i == len(w) {
			return nil
		}
		left -= len(w[i])
	}
	start := len(c.cut)
	c.cut = append(c.cut, w[:i]...)
	if stay := -left; stay > 0 { // of the last
		i--
		last := w[i]
		c.cut[len(c.cut)-1] = last[: len(last)-stay : len(last)-stay]
		w[i] = last[len(last)-stay:]
	}
	c.Writable = w[i:]
	return c.cut[start:len(c.cut):len(c.cut)]
}

func length(bufs [][]byte) uint64 {
	n := uint64(0)
	for _, b := range bufs {
		n += uint64(len(b))
	}
	return n
}

// advance removes the first n bytes of the first buffer.
func advance(bufs [][]byte, n int) [][]byte {
	if n == len(bufs[0]) {
		return bufs[1:]
	}
	bufs[0] = bufs[0][n:]
	return bufs
}

// Driver errors that both formats share.
var (
	errTooLong  = errors.New("the chain has more descriptors than allowed, or a loop")
	errTooLarge = errors.New("the chain is larger than 2^32 bytes")
	errOrder    = errors.New("a device-readable buffer follows a writable one")
)

// maxTotal is how many bytes a chain may have, §2.7.5.2. §2.8 has no such rule, but
// it also has a used length of 32 bits.
const maxTotal = 1 << 32

// add appends the buffer of a descriptor. An empty descriptor adds nothing and may
// have any address, but it counts: otherwise a loop of them would never end.
func (c *Chain) add(addr mem.Addr, n uint32, writable bool) error {
	if c.descs++; c.descs > c.queue.limit {
		return errTooLong
	}
	if n == 0 {
		return nil
	}
	if c.total += uint64(n); c.total > maxTotal {
		return errTooLarge
	}
	b, err := c.queue.mem.Slice(addr, uint64(n))
	if err != nil {
		return err
	}
	switch {
	case writable:
		c.writable += uint64(n)
	case c.writable > 0:
		return errOrder // §2.7.4.2, §2.8.17
	default:
		c.readable++
	}
	c.bufs = append(c.bufs, b)
	return nil
}

// seal ends a walk and makes c ready for the device.
func (c *Chain) seal() {
	c.Readable = c.bufs[:c.readable:c.readable]
	c.Writable = c.bufs[c.readable:]
	c.popped = true
}

// clear makes c empty again. If keep is true, its slices keep their capacity.
func (c *Chain) clear(keep bool) {
	bufs, cut := c.bufs[:0], c.cut[:0]
	if !keep {
		bufs, cut = nil, nil
	}
	*c = Chain{queue: c.queue, bufs: bufs, cut: cut}
}

func (c *Chain) capacity() int { return cap(c.bufs) + cap(c.cut) }
