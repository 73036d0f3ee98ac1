package virtiotest

import (
	"bytes"
	"fmt"
)

// registerCases access every register with every wrong width and offset, and write
// the read-only ones.
func registerCases(s *suite) (list []hostile) {
	base, right := s.registerMap()
	for word := uint64(0); word < 0x100; word += 4 {
		if word > commonSize && s.kind != MMIO {
			break
		}
		list = append(list, s.live(fmt.Sprintf("accesses at %#x", word), func(*Queue) {
			for off := word; off < word+4; off++ {
				for _, width := range []int{1, 2, 3, 4, 8} {
					p := make([]byte, width)
					s.board.Memory.Read(base+off, p)
					if width != right(off) {
						s.board.Memory.Write(base+off, bytes.Repeat([]byte{0xff}, width))
						s.board.Memory.Write(base+off, make([]byte, width))
					}
				}
			}
		}))
	}
	for _, r := range []Register{DeviceFeature, ISR, Generation, NumQueues, QueueSizeMax, QueueNotifyOff, QueueNotifyData} {
		list = append(list, s.live(fmt.Sprintf("register %d is written", r), func(q *Queue) {
			s.d.Set(QueueSelect, uint32(q.index))
			was := s.d.Get(r)
			for _, v := range []uint32{0, 1, 0xffffffff} {
				s.d.Set(r, v)
				if got := s.d.Get(r); got != was && r != ISR {
					s.Errorf("register %d is %#x, was %#x", r, got, was)
				}
			}
		}))
	}
	list = append(list, s.live("the whole window is read", func(*Queue) {
		_, size := s.d.access.config()
		for off := uint64(0); off < size+0x100; off += 3 {
			for _, width := range []int{1, 2, 4, 8} {
				s.board.Memory.Read(base+off, make([]byte, width))
			}
		}
	}))
	list = append(list, s.live("the configuration is written beyond its end", func(*Queue) {
		_, size := s.d.access.config()
		for off := uint64(512); off < size; off += 7 {
			s.d.WriteConfig(off, []byte{1, 2, 3, 4, 5, 6, 7, 8})
		}
	}))
	return list
}

// registerMap returns where the registers are, and a function that returns the valid
// access width at an offset, or 0.
func (s *suite) registerMap() (base uint64, right func(off uint64) int) {
	places := &commonPlaces
	if s.kind == MMIO {
		places, base = &mmioPlaces, s.d.Slot.base
	} else {
		base = s.d.pci().structures[capCommon].off
	}
	return base, func(off uint64) int {
		if s.kind == MMIO && off == mmioNotify {
			return 4
		}
		for _, p := range places {
			if p.width != 0 && p.off == off {
				return p.width
			}
		}
		return 0
	}
}
