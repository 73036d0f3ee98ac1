package blk

import (
	"bytes"
	"testing"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
	"vmm/test/allow"
)

var deadline = allow.Time(20 * time.Second)

// Where the driver puts things. Each slot holds one request, and has its own
// descriptors and its own piece of RAM.
const (
	descAt, availAt, usedAt = 0x1000, 0x3000, 0x4000
	slotsAt, slotSize       = 0x10000, 128 << 10
	slots, slotDescs        = 16, queueSize / 16
)

var layout = virtq.Layout{Size: queueSize, Desc: descAt, Driver: availAt, Device: usedAt}

// A driver drives queue 0 of a device that has started, as a guest would.
type driver struct {
	t   testing.TB
	dev *Device
	m   *mem.Memory
	ram []byte
	q   *virtq.Queue
	irq chan struct{}

	avail, used uint16
	stopped     bool
}

// start starts dev with the features.
func start(t testing.TB, dev *Device, features uint64) *driver {
	t.Helper()
	d := &driver{t: t, dev: dev, ram: make([]byte, slotsAt+slots*slotSize), irq: make(chan struct{}, 1)}
	d.m = mem.New(mem.Region{Bytes: d.ram})
	var err error
	d.q, err = virtq.New(d.m, layout, virtq.Format{}, virtq.State{}, func() {
		select {
		case d.irq <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(features, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d
}

// stop stops the device as the transport does.
func (d *driver) stop() {
	if d.stopped {
		return
	}
	d.stopped = true
	d.q.Stop()
	select {
	case <-d.q.Drained():
	case <-time.After(deadline):
		d.t.Error("a chain is not pushed")
	}
	d.dev.Stop()
}

// An ask is a request as the driver makes it: what the device reads and how much room it
// has to write to, cut into buffers of these lengths; 0 is the rest.
type ask struct {
	out     []byte
	outCuts []int
	room    int
	inCuts  []int
}

// header returns struct virtio_blk_req, and the data behind it.
func header(kind uint32, sector uint64, data ...byte) []byte {
	b := make([]byte, headerSize, headerSize+len(data))
	le.PutUint32(b, kind)
	le.PutUint64(b[8:], sector)
	return append(b, data...)
}

// submit makes a available in slot s, and returns the room.
func (d *driver) submit(s int, a ask) []byte {
	base := slotsAt + s*slotSize
	copy(d.ram[base:], a.out)
	in := base + slotSize/2
	desc := s * slotDescs
	last := -1
	add := func(addr, n int, flags uint16) {
		if last >= 0 {
			e := d.ram[descAt+16*last:]
			le.PutUint16(e[12:], le.Uint16(e[12:])|1)
			le.PutUint16(e[14:], uint16(desc))
		}
		e := d.ram[descAt+16*desc:]
		le.PutUint64(e, uint64(addr))
		le.PutUint32(e[8:], uint32(n))
		le.PutUint16(e[12:], flags)
		last = desc
		desc++
	}
	cut := func(addr, n int, cuts []int, flags uint16) {
		for _, c := range append(cuts, n) {
			if c = min(c, n); c > 0 || n == 0 && last < 0 {
				add(addr, c, flags)
				addr, n = addr+c, n-c
			}
		}
	}
	if len(a.out) > 0 {
		cut(base, len(a.out), a.outCuts, 0)
	}
	if a.room > 0 || len(a.out) == 0 {
		cut(in, a.room, a.inCuts, 2)
	}
	le.PutUint16(d.ram[availAt+4+2*int(d.avail%queueSize):], uint16(s*slotDescs))
	d.avail++
	idx, _ := d.m.U16(availAt + 2)
	idx.Store(d.avail)
	return d.ram[in : in+a.room]
}

// wait returns the next used slot, and the used length.
func (d *driver) wait() (slot int, n uint32) {
	d.t.Helper()
	idx, _ := d.m.U16(usedAt + 2)
	for timeout := time.After(deadline); idx.Load() == d.used; {
		select {
		case <-d.irq:
		case <-timeout:
			d.t.Fatal("the device does not answer")
		}
	}
	e := d.ram[usedAt+4+8*int(d.used%queueSize):]
	d.used++
	return int(le.Uint32(e)) / slotDescs, le.Uint32(e[4:])
}

// do makes one request and returns what the device wrote, the used length, and
// the status.
func (d *driver) do(a ask) (in []byte, n uint32, s status) {
	d.t.Helper()
	room := d.submit(0, a)
	for i := range room {
		room[i] = 0xee
	}
	d.dev.Serve(0, d.q)
	_, n = d.wait()
	if len(room) == 0 {
		return nil, n, statusLater
	}
	last := len(room) - 1
	return bytes.Clone(room[:last]), n, status(room[last])
}
