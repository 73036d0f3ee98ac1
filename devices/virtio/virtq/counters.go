package virtq

import "sync/atomic"

// Counters count what passes through a queue. They outlive the queue: when it is
// stopped and started again, they continue.
type Counters struct{ chains, in, out, interrupts atomic.Uint64 }

// Count is a copy of the Counters' values.
type Count struct {
	Chains     uint64 // given back to the driver
	In         uint64 // bytes that the device wrote into them
	Out        uint64 // bytes in their readable buffers
	Interrupts uint64 // raised for them
}

// Load returns the counts so far. The fields may be read a chain apart.
func (c *Counters) Load() Count {
	return Count{c.chains.Load(), c.in.Load(), c.out.Load(), c.interrupts.Load()}
}

// CountIn makes the queue count in c. It is called before the first Pop.
func (q *Queue) CountIn(c *Counters) { q.counters = c }

// used counts chains that are about to be given back. It runs once per batch, because
// each add is a locked instruction.
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
