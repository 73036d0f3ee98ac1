package virtiotest

import (
	"bytes"
	"fmt"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

const anything want = -1 // only what is required of every case

// atSetup is a case whose first queue is placed where edit says. edit returns its
// free RAM.
func (s *suite) atSetup(name string, w want, edit func(l *virtq.Layout) []span) hostile {
	return hostile{name, 0, w, func(old *Queue) ([]span, func()) {
		s.d.reset()
		steps := s.d.steps(s.setup())
		q := s.d.Queues[old.index]
		free := edit(&q.Layout)
		for _, step := range steps[:len(steps)-1] {
			step.do()
		}
		return free, func() {
			steps[len(steps)-1].do()
			q.Notify()
		}
	}}
}

func areaCases(s *suite) (list []hostile) {
	config, _ := s.d.access.config()
	bad := map[string]mem.Addr{
		"0": 0, "between regions": lowBase + lowSize, "at a region's end": lowBase + lowSize - 16, "at the last end": highBase + highSize,
		"overflow": 1<<64 - 16, "2^63": 1 << 63, "below RAM": lowBase - 16, "the device's registers": mem.Addr(config) &^ 15,
	}
	area := func(l *virtq.Layout, i int) *mem.Addr { return []*mem.Addr{&l.Desc, &l.Driver, &l.Device}[i] }
	for i, what := range []string{"descriptor", "driver", "device"} {
		add := func(name string, move func(a mem.Addr) mem.Addr) {
			list = append(list, s.atSetup(what+" area "+name, breaks, func(l *virtq.Layout) []span {
				a := area(l, i)
				*a = move(*a)
				return nil
			}))
		}
		for name, addr := range sorted(bad) {
			if name == "at a region's end" && s.packed && i > 0 {
				addr += 16 // 4 bytes would fit
			}
			add("at "+name, func(mem.Addr) mem.Addr { return addr })
		}
		add("at an odd address", func(a mem.Addr) mem.Addr { return a + 1 })
		if i != 1 || s.packed {
			add("at an even address", func(a mem.Addr) mem.Addr { return a + 2 })
		}
		if i == 0 {
			add("8 bytes on", func(a mem.Addr) mem.Addr { return a + 8 })
		}
	}
	return append(list, s.overlapCases()...)
}

// overlapCases returns rings whose areas share the same RAM. It holds zeros, which
// the device overwrites, and also garbage unless the race detector runs.
func (s *suite) overlapCases() (list []hostile) {
	fills := []byte{0}
	if !raced {
		fills = append(fills, 0xff, 0x81, 1)
	}
	for name, edit := range sorted(map[string]func(l *virtq.Layout){
		"descriptors and driver area":  func(l *virtq.Layout) { l.Driver = l.Desc },
		"descriptors and device area":  func(l *virtq.Layout) { l.Device = l.Desc },
		"driver and device area":       func(l *virtq.Layout) { l.Device = l.Driver &^ 3; l.Driver = l.Device },
		"all areas":                    func(l *virtq.Layout) { l.Driver, l.Device = l.Desc, l.Desc },
		"device area in the middle":    func(l *virtq.Layout) { l.Device = l.Desc + 8 },
		"driver area at the used ring": func(l *virtq.Layout) { l.Driver = l.Device + 4 },
	}) {
		for _, fill := range fills {
			list = append(list, s.atSetup(fmt.Sprintf("%s are one, %#x", name, fill), anything, func(l *virtq.Layout) []span {
				edit(l)
				free := []span{{l.Desc, 4096}, {l.Driver, 4096}, {l.Device, 4096}}
				for _, f := range free {
					b := s.board.bytes(f.addr, 512)
					for i := range b {
						b[i] = fill
					}
				}
				return free
			}))
		}
	}
	return list
}

func sizeCases(s *suite) (list []hostile) {
	most := s.d.Sizes[0]
	for _, size := range []uint32{0, uint32(most) + 1, 2 * uint32(most), 0x8000, 0xffff} {
		if size != 0 && size <= uint32(most) {
			continue
		}
		list = append(list, s.live(fmt.Sprintf("size %d", size), func(*Queue) {
			s.d.reset()
			for i, step := range s.d.steps(s.setup()) {
				step.do()
				if step.name != "queue" {
					continue
				}
				was := s.d.Get(QueueSize)
				if s.d.Set(QueueSize, size); s.d.Get(QueueSize) != was {
					s.Errorf("step %d: size %d", i, s.d.Get(QueueSize))
				}
			}
		}))
	}
	for _, size := range []uint16{3, 5, 12, 63, 100, most - 1} {
		if size >= most {
			continue
		}
		w := breaks
		if s.packed {
			w = harmless
		}
		list = append(list, s.atSetup(fmt.Sprintf("size %d", size), w, func(l *virtq.Layout) []span {
			l.Size = size
			return []span{{l.Desc, 16 * uint64(size)}}
		}))
	}
	return list
}

// live is a case that does something to a device while it works. The device must
// continue to work without a reset.
func (s *suite) live(name string, do func(q *Queue)) hostile {
	return hostile{name, 0, harmless, func(q *Queue) ([]span, func()) {
		s.answers(1)
		return s.driverAreas(), func() {
			do(q)
			s.d.access.handle()
			s.answers(2)
		}
	}}
}

// queueRegisters are the queue registers that a driver can write.
var queueRegisters = []Register{QueueSize, QueueDesc, QueueDescHigh, QueueDriver, QueueDriverHigh, QueueDevice, QueueDeviceHigh}

func liveCases(s *suite) (list []hostile) {
	for _, r := range queueRegisters {
		for _, v := range []uint32{0, 2, 0xdead0000, 0xffffffff} {
			list = append(list, s.live(fmt.Sprintf("register %d becomes %#x", r, v), func(q *Queue) {
				s.d.Set(QueueSelect, uint32(q.index))
				was := s.d.Get(r)
				if s.d.Set(r, v); s.d.Get(r) != was {
					s.Errorf("register %d of a live queue is %#x, was %#x", r, s.d.Get(r), was)
				}
			}))
		}
	}
	for _, v := range []uint32{1, 3, 0xffff, 0xffffffff} {
		list = append(list, s.live(fmt.Sprintf("enabled again with %#x", v), func(q *Queue) {
			s.d.Set(QueueSelect, uint32(q.index))
			s.d.Set(QueueEnable, v)
		}))
	}
	for _, v := range []uint32{0, 1, 2, 0xffffffff} {
		list = append(list, s.live(fmt.Sprintf("queue_reset is %#x, not negotiated", v), func(q *Queue) {
			s.d.Set(QueueSelect, uint32(q.index))
			s.d.Set(QueueReset, v)
		}))
	}
	for _, f := range []uint64{0, 1 << 32, ^uint64(0)} {
		list = append(list, s.live(fmt.Sprintf("features %#x", f), func(*Queue) { s.d.Choose(f) }))
	}
	for _, v := range []uint32{1, 3, 4, 8, 11, 15, 64, 0x4f} {
		list = append(list, s.live(fmt.Sprintf("status %#x", v), func(*Queue) { s.d.Set(Status, v) }))
	}
	n := uint32(len(s.d.Sizes))
	for _, sel := range []uint32{n, n + 1, 0x7fff, 0x8000, 0xffff, 0xffffffff} {
		list = append(list, s.live(fmt.Sprintf("queue %d is written", sel), func(*Queue) {
			s.d.Set(QueueSelect, sel)
			if sel > 0xffff && s.kind != MMIO {
				s.d.Set(QueueSelect, 0xffff)
			}
			for _, r := range append(queueRegisters, QueueVector, QueueReset, QueueNotifyOff, QueueNotifyData, QueueEnable) {
				s.d.Set(r, 1)
				want := uint32(0)
				if r == QueueVector && s.kind != MMIO {
					want = noVector
				}
				if got := s.d.Get(r); got != want {
					s.Errorf("register %d of no queue is %#x", r, got)
				}
			}
		}))
	}
	return list
}

func kickCases(s *suite) (list []hostile) {
	n := len(s.d.Sizes)
	absent := []int{n, n + 1, 100, 255, 0x3ff}
	if s.kind == MSIX { // its notifications carry the queue number in the value
		absent = append(absent, 0x7fff, 0xff00, 0xffff)
	}
	for _, queue := range absent {
		list = append(list, s.live(fmt.Sprintf("a kick of queue %d", queue), func(*Queue) {
			s.d.notify(queue)
		}))
	}
	for width := range 9 {
		for off := range uint64(4) {
			list = append(list, s.live(fmt.Sprintf("a kick of width %d at %d", width, off), func(*Queue) {
				bus, addr, _ := s.d.access.notify(0)
				p := []byte{1, 2, 3, 4, 5, 6, 7, 8}[:width]
				bus.Write(addr+off, p)
				bus.Read(addr+off, p)
				if s.kind == MSIX && !bytes.Equal(p, bytes.Repeat([]byte{0xff}, width)) {
					s.Errorf("a port reads as %x", p)
				}
			}))
		}
	}
	for _, v := range []uint32{0x10000, 0x80000000, 0xffffffff, uint32(n)} {
		list = append(list, s.live(fmt.Sprintf("a kick with %#x", v), func(*Queue) {
			bus, addr, _ := s.d.access.notify(0)
			bus.Write(addr, le.AppendUint32(nil, v))
		}))
	}
	list = append(list, s.live("1000 kicks", func(q *Queue) {
		for range 1000 {
			q.Notify()
		}
	}))
	list = append(list, s.live("kicks at each step", func(*Queue) {
		s.d.reset()
		for _, step := range s.d.steps(s.setup()) {
			for _, q := range s.d.Queues {
				q.Notify()
			}
			step.do()
		}
	}))
	return list
}
