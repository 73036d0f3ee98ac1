package balloon

import (
	"encoding/binary"
	"slices"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

var le = binary.LittleEndian

const (
	// batch is how many page numbers are handled together. Linux sends 256 at once.
	batch = 1024

	// maxPages bounds the work of a request: its buffers may overlap, so that 4 GiB
	// of page numbers cost a guest nothing. Further pages stay with the guest.
	maxPages = 16 * batch
)

// inflate takes the pages that the driver gives, §5.5.6.
func (d *Device) inflate(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		for done := 0; done < maxPages; {
			n := d.numbers(c)
			if n == 0 {
				break
			}
			d.take(d.scratch[:n])
			done += n
		}
		q.Push(c, 0)
	}
}

// numbers moves page numbers from a request to scratch, and returns how many. An
// incomplete last number is ignored.
func (d *Device) numbers(c *virtq.Chain) (n int) {
	var b [4]byte
	for n < batch && c.ReadFull(b[:]) {
		d.scratch[n] = le.Uint32(b[:])
		n++
	}
	return n
}

// take discards pages, and reorders numbers. Neighbours go together: the driver takes
// them from larger blocks, so a huge page of the host is given back at once instead
// of in 512 parts.
func (d *Device) take(numbers []uint32) {
	slices.Sort(numbers)
	for len(numbers) > 0 {
		first, n := numbers[0], uint32(1)
		i := 1
		for ; i < len(numbers) && numbers[i]-first <= n; i++ { // a duplicate, or the next
			n = numbers[i] - first + 1
		}
		numbers = numbers[i:]
		d.takeRun(mem.Addr(first)*mem.PageSize, mem.Addr(n)*mem.PageSize)
	}
}

// takeRun discards a run of pages. Some may not be RAM, or the run may cross from one
// region into the next.
func (d *Device) takeRun(a, n mem.Addr) {
	if b, err := d.memory.Slice(a, uint64(n)); err == nil {
		d.discard(b)
		return
	}
	for end := a + n; a < end; a += mem.PageSize {
		if b, err := d.memory.Slice(a, mem.PageSize); err == nil {
			d.discard(b)
		}
	}
}

// deflate acknowledges that the driver takes pages back, §5.5.6. They were discarded,
// and need no action: the first access brings them back.
func deflate(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		q.Push(c, 0)
	}
}

// report takes the free pages that the driver reports, §5.5.6.7. The driver may use
// them again once they are acknowledged. A driver that wants its own pattern in free
// pages (PAGE_POISON) must find it there: only zeros can be provided.
func (d *Device) report(q *virtq.Queue) {
	features := d.negotiated.Load()
	d.mu.Lock()
	may := features&featureReporting != 0 && (features&featurePoison == 0 || d.field(configPoison) == 0)
	d.mu.Unlock()
	for c := q.Pop(); c != nil; c = q.Pop() {
		if may {
			for _, b := range c.Writable {
				if d.discard(b) {
					d.reported.Add(uint64(len(b)))
				}
			}
		}
		q.Push(c, 0)
	}
}

// discard gives pages back to the host. If that fails, they stay with the guest.
func (d *Device) discard(b []byte) bool {
	err := d.memory.Discard(b)
	if err != nil && !d.failed.Swap(true) {
		d.log.Warn("the balloon's pages stay in the host's memory", "err", err)
	}
	return err == nil
}
