package blk

import (
	"testing"

	"vmm/devices/virtio/virtq"
)

// FuzzRequest lets the fuzzer choose the header, what follows it, how both are cut into
// descriptors, and what the disk is. The image fails the test on an access beyond the
// disk.
func FuzzRequest(f *testing.F) {
	f.Add(header(typeIn, 8), uint16(513), []byte{16}, []byte{255, 1}, false, true)
	f.Add(header(typeOut, 8, make([]byte, 512)...), uint16(1), []byte{15, 2}, []byte{}, false, false)
	f.Add(header(typeOut, 8, make([]byte, 512)...), uint16(1), []byte{}, []byte{}, true, false)
	f.Add(header(typeFlush, 0), uint16(1), []byte{}, []byte{}, false, false)
	f.Add(header(typeID, 0), uint16(21), []byte{}, []byte{7}, false, false)
	f.Add(header(typeDiscard, 0, append(seg(8, 16, 0), seg(1<<63, 1<<31, 0)...)...), uint16(1), []byte{3, 20}, []byte{}, false, true)
	f.Add(header(typeWriteZeroes, 0, seg(8, 16, 1)...), uint16(1), []byte{20}, []byte{}, false, true)
	f.Add([]byte{}, uint16(0), []byte{}, []byte{}, false, false)
	f.Fuzz(func(t *testing.T, out []byte, room uint16, outCuts, inCuts []byte, readOnly, atOnce bool) {
		m := newMemory(t, 16*512)
		m.readOnly = readOnly
		var image Image = m
		if atOnce {
			image = cached{m}
		}
		dev := newWith(t, image, Config{Workers: 1})
		d := start(t, dev, allFeatures)
		a := ask{out: out[:min(len(out), slotSize/2)], room: int(room), outCuts: cuts(outCuts), inCuts: cuts(inCuts)}
		if len(a.out)+a.room == 0 {
			a.room = 1 // the driver cannot make an empty chain
		}
		before := len(m.bytes)
		_, n, s := d.do(a)
		switch {
		case n != uint32(a.room):
			t.Errorf("used %d of %d", n, a.room)
		case a.room > 0 && s != statusOK && s != statusIOErr && s != statusUnsupp:
			t.Errorf("status %d", s)
		case a.room == 0 && len(m.ops) > 0:
			t.Errorf("did %q without a place for the status", m.ops)
		case len(m.bytes) != before:
			t.Errorf("the disk has %d bytes", len(m.bytes))
		}
		d.stop()
	})
}

// FuzzChain lets the fuzzer be the whole guest: its input is the RAM with the
// descriptors, the header and everything else.
func FuzzChain(f *testing.F) {
	ram := make([]byte, 512)
	copy(ram[256:], header(typeIn, 1))
	for i, e := range []struct {
		addr, n uint64
		flags   uint16
	}{{256, 16, 1}, {8192, 512, 3}, {8192, 1, 2}} {
		le.PutUint64(ram[16*i:], e.addr)
		le.PutUint32(ram[16*i+8:], uint32(e.n))
		le.PutUint16(ram[16*i+12:], e.flags)
		le.PutUint16(ram[16*i+14:], uint16(i+1))
	}
	f.Add(ram)
	f.Fuzz(func(t *testing.T, ram []byte) {
		dev := newWith(t, cached{newMemory(t, 16*512)}, Config{Workers: 1})
		d := start(t, dev, allFeatures)
		copy(d.ram[:0x3000], ram)
		clear(d.ram[availAt:slotsAt])
		d.q.Stop()
		<-d.q.Drained()
		var err error
		d.q, err = virtq.New(d.m, virtq.Layout{Size: queueSize, Desc: 0, Driver: availAt, Device: usedAt}, virtq.Format{Indirect: true}, virtq.State{}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		idx, _ := d.m.U16(availAt + 2)
		idx.Store(4) // four chains, all of descriptor 0
		dev.Serve(0, d.q)
		d.stop()
	})
}

func cuts(b []byte) (n []int) {
	for _, c := range b[:min(len(b), slotDescs/2-1)] {
		n = append(n, int(c)+1)
	}
	return n
}
