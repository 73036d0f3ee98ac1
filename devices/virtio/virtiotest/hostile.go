package virtiotest

import (
	"iter"
	"maps"
	"slices"
	"testing"

	"vmm/devices/virtio"
	"vmm/mem"
)

// A table is a list of hostile cases that form one subtest. A function makes it for a
// suite, because the cases depend on transport and ring.
type table struct {
	name  string
	cases func(s *suite) []hostile
	ring  bool // tests the rings, not the transport
}

var tables = []table{
	{"hostile addresses", addressCases, true},
	{"hostile lengths", lengthCases, true},
	{"hostile order", orderCases, true},
	{"hostile indirect tables", indirectCases, true},
	{"hostile split rings", splitCases, true},
	{"hostile packed rings", packedCases, true},
	{"hostile areas", areaCases, true},
	{"hostile sizes", sizeCases, false},
	{"hostile live queues", liveCases, false},
	{"hostile kicks", kickCases, false},
	{"hostile registers", registerCases, false},
	{"hostile BARs", barCases, false},
	{"hostile access capability", accessCases, false},
	{"hostile MSI-X", msixCases, false},
}

// A hostile is something that a bad driver does. The device is started and idle when
// do is called, for its first queue. After act the device must reach the state in
// want within the deadline, must not write to RAM that was not given to it, and must
// work after a reset.
type hostile struct {
	name     string
	features uint64 // besides those of the ring's format
	want     want
	// do prepares RAM. It returns what may be written besides the device areas, and
	// the act.
	do func(q *Queue) (free []span, act func())
}

type want int

const (
	harmless want = iota // no effect: no NEEDS_RESET
	breaks               // DEVICE_NEEDS_RESET
	ends                 // DEVICE_NEEDS_RESET, or something is used
	answers              // something is used
)

func (s *suite) runTable(t *testing.T, table table) {
	s.run(t, check{table.name, func(s *suite) {
		list := table.cases(s)
		if len(list) == 0 {
			s.Skip("not of this transport or ring")
		}
		for i, c := range list {
			// Ring cases are the same on every transport, and transport cases with
			// either ring: only some are repeated.
			if i%4 != 0 && (table.ring && s.kind != MMIO || !table.ring && s.packed) {
				continue
			}
			s.hostile(c)
			if s.Failed() {
				s.Fatalf("in case %q", c.name)
			}
		}
	}})
}

func (s *suite) hostile(c hostile) {
	s.cases++
	s.note = c.name
	setup := s.setupWith(c.features)
	s.d.Start(setup)
	q := s.d.Queues[0]
	if driven := s.driven(); len(driven) > 0 {
		q = driven[0]
	}
	free, act := c.do(q)
	g := s.guard(free)
	act()
	s.reaches(q, c.want)
	s.settle()
	if err := g.check(); err != nil {
		s.Error(err)
	}
	s.d.Start(s.setup())
	s.answers(1)
	s.d.reset()
	s.note = ""
}

func (s *suite) reaches(q *Queue, w want) {
	s.Helper()
	isBroken := func() bool { return s.d.Get(Status)&needsReset != 0 }
	switch w {
	case harmless:
		s.bystanderIdle()
		if isBroken() {
			s.Error("DEVICE_NEEDS_RESET")
		}
	case breaks:
		s.needsReset()
	case ends:
		s.d.until("an answer or DEVICE_NEEDS_RESET", func() bool { return isBroken() || q.ring.peek() })
	case answers:
		s.d.until("an answer", q.ring.peek)
		if isBroken() {
			s.Error("DEVICE_NEEDS_RESET")
		}
	}
}

// good returns the chain of a valid request, with two readable and two writable
// buffers if it has enough bytes, and which RAM is writable.
func (s *suite) good(q *Queue) ([]desc, []span) {
	s.Helper()
	r := s.request(q.index)
	q.setup.Cut = max((len(r.Out)+1)/2, (r.In+1)/2, 1)
	t := &Ticket{Request: r}
	chain := q.chain(t)
	q.setup.Cut = 0
	return chain, []span{{t.room, uint64(t.In)}}
}

// linked returns a chain as ring descriptors, starting at the first.
func linked(chain []desc) []desc {
	chain = append([]desc(nil), chain...)
	for i := range chain[:len(chain)-1] {
		chain[i].flags |= flagNext
		chain[i].next = uint16(i + 1)
	}
	return chain
}

// tableOf writes an indirect table and returns its descriptor.
func (s *suite) tableOf(q *Queue, chain []desc) desc {
	s.Helper()
	n := 16 * len(chain)
	a := q.buffer(&Ticket{}, n)
	putTable(s.board.bytes(a, uint64(n)), q.Format, chain)
	return desc{addr: a, n: uint32(n), flags: flagIndirect}
}

// submit makes descriptors available and returns the act of kicking.
func submit(q *Queue, descs []desc, heads ...uint16) func() {
	q.ring.raw(descs, heads...)
	return q.Notify
}

// both returns a case twice, with the chain that edit makes of a good one: in the
// ring, and in a table.
func (s *suite) both(name string, w want, edit func(chain []desc) []desc) []hostile {
	make := func(inTable bool) func(q *Queue) ([]span, func()) {
		return func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			chain = edit(chain)
			if inTable {
				return free, submit(q, []desc{s.tableOf(q, chain)})
			}
			return free, submit(q, linked(chain))
		}
	}
	return []hostile{
		{name + ", in the ring", 0, w, make(false)},
		{name + ", in a table", virtio.FeatureIndirectDesc, w, make(true)},
	}
}

// sorted ranges over a map always in the same order, so that a failure can be
// reproduced.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// badAddresses returns buffers that are not in RAM.
func (s *suite) badAddresses() map[string]desc {
	config, _ := s.d.access.config()
	const lowEnd, highEnd = lowBase + lowSize, highBase + highSize
	return map[string]desc{
		"0":                           {addr: 0, n: 16},
		"just below RAM":              {addr: lowBase - 8, n: 16},
		"far below RAM":               {addr: lowBase - 0x10000, n: 0x20000},
		"between regions":             {addr: lowEnd, n: 16},
		"over a region's end":         {addr: lowEnd - 8, n: 16},
		"a byte over a region's end":  {addr: lowEnd - 1, n: 2},
		"over the last region's end":  {addr: highEnd - 16, n: 17},
		"at the last region's end":    {addr: highEnd, n: 1},
		"from one region to the next": {addr: lowBase, n: 0xfff80000},
		"overflow":                    {addr: 1<<64 - 16, n: 32},
		"the last byte":               {addr: 1<<64 - 1, n: 1},
		"overflow of 4 GiB":           {addr: 1<<64 - 1, n: 0xffffffff},
		"overflow into RAM":           {addr: 1<<64 - 0x100000, n: 0x200000},
		"2^63":                        {addr: 1 << 63, n: 16},
		"the device's own registers":  {addr: mem.Addr(config), n: 16},
		"ECAM":                        {addr: ecamBase, n: 256},
		"4 GiB":                       {addr: lowBase, n: 0xffffffff},
		"2 GiB":                       {addr: lowBase, n: 1 << 31},
	}
}

func addressCases(s *suite) (list []hostile) {
	for name, bad := range sorted(s.badAddresses()) {
		list = append(list, s.both(name+", first", breaks, func(c []desc) []desc {
			bad.flags = c[0].flags
			c[0] = bad
			return c
		})...)
		list = append(list, s.both(name+", last", breaks, func(c []desc) []desc {
			bad.flags = c[len(c)-1].flags
			c[len(c)-1] = bad
			return c
		})...)
		list = append(list, s.both(name+", more", breaks, func(c []desc) []desc {
			bad.flags = flagWrite
			return append(c, bad)
		})...)
	}
	return list
}

func lengthCases(s *suite) (list []hostile) {
	add := func(name string, w want, edit func(c []desc) []desc) { list = append(list, s.both(name, w, edit)...) }
	zero := func(flags uint16, addr mem.Addr) desc { return desc{addr: addr, flags: flags} }
	add("an empty buffer first", ends, func(c []desc) []desc { return append([]desc{zero(0, lowBase)}, c...) })
	add("an empty buffer last", ends, func(c []desc) []desc { return append(c, zero(flagWrite, lowBase)) })
	add("an empty buffer outside of RAM", ends, func(c []desc) []desc { return append(c, zero(flagWrite, 1<<63)) })
	add("an empty readable buffer last", ends, func(c []desc) []desc { return append(c, zero(0, lowBase)) })
	add("nothing", ends, func([]desc) []desc { return []desc{zero(0, 0)} })
	add("nothing writable", ends, func([]desc) []desc { return []desc{zero(flagWrite, 0)} })
	add("nothing twice", ends, func([]desc) []desc { return []desc{zero(0, 0), zero(flagWrite, 0)} })
	add("all empty", ends, func(c []desc) []desc {
		for i := range c {
			c[i].n = 0
		}
		return c
	})
	add("all of one byte", ends, func(c []desc) []desc {
		for i := range c {
			c[i].n = 1
		}
		return c
	})
	add("readable only", ends, func(c []desc) []desc { return []desc{{addr: c[0].addr, n: c[0].n}} })
	add("writable only", ends, func(c []desc) []desc { return c[len(c)-1:] })
	add("a short last buffer", ends, func(c []desc) []desc {
		c[len(c)-1].n /= 2
		return c
	})
	add("a buffer twice", ends, func(c []desc) []desc { return append(c, c[len(c)-1]) })
	add("overlapping buffers", ends, func(c []desc) []desc {
		last := c[len(c)-1]
		if last.n > 1 {
			last.addr, last.n = last.addr+1, last.n-1
		}
		return append(c, last)
	})
	add("readable and writable at once", ends, func(c []desc) []desc {
		last := c[len(c)-1]
		last.flags = 0
		return append([]desc{last}, c...)
	})
	if raced {
		return list // "much to read" includes the rings of other queues
	}
	add("much to read", ends, func(c []desc) []desc {
		return append([]desc{{addr: lowBase, n: lowSize - 0x8000}}, c[len(c)-1])
	})
	return list
}

func orderCases(s *suite) (list []hostile) {
	add := func(name string, edit func(c []desc) []desc) { list = append(list, s.both(name, breaks, edit)...) }
	r := func(c []desc) desc { return desc{addr: c[0].addr, n: 1} }
	w := func(c []desc) desc { return desc{addr: c[len(c)-1].addr, n: 1, flags: flagWrite} }
	add("writable, readable", func(c []desc) []desc { return []desc{w(c), r(c)} })
	add("good, readable", func(c []desc) []desc {
		if c[len(c)-1].flags&flagWrite == 0 { // more to read would be valid
			c = append(c, w(c))
		}
		return append(c, r(c))
	})
	add("writable, good, readable", func(c []desc) []desc { return append(append([]desc{w(c)}, c...), r(c)) })
	add("alternating", func(c []desc) []desc { return []desc{r(c), w(c), r(c), w(c), r(c), w(c)} })
	add("all backwards", func(c []desc) []desc {
		return []desc{w(c), w(c), r(c), r(c)}
	})
	return list
}
