package virtq

import "sync/atomic"

// Counters count what has passed through a queue. They outlive it: one that is
// stopped and started again goes on counting.
type Counters struct{ chains, in, out, interrupts atomic.Uint64 }

// Count is what Counters have counted.
type Count struct {
	Chains     uint64 // given back to the driver
	In         uint64 // bytes that the device wrote into them
	Out        uint64 // bytes of their readable buffers
	Interrupts uint64 // for them
}

// Load returns what was counted so far. The fields may be of moments a chain apart.
func (c *Counters) Load() Count {
	return Count{c.chains.Load(), c.in.Load(), c.out.Load(), c.interrupts.Load()}
}

// CountIn has the queue count in c. It is called before the first Pop.
func (q *Queue) CountIn(c *Counters) { q.counters = c }

// used counts chains that are about to be given back: once a batch, for each of
// these is a locked instruction.
func (c *Counters) used(batch []Used, signal bool) {
	var in, out uint64
	for _, u := range batch {
		in += uint64(u.N)
		out += u.Chain.total - u.Chain.writable
	}
	c.chains.Add(uint64(len(batch)))
	c.in.Add(in)
	c.out.Add(out)
	if signal {
		c.interrupts.Add(1)
	}
}
