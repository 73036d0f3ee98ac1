package fs

import (
	"bytes"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
	"vmm/test/allow"
)

var deadline = allow.Time(20 * time.Second)

// Where the driver puts things.
const (
	descAt, availAt, usedAt = 0x1000, 0x6000, 0x8000
	outAt, inAt, ramSize    = 0x10000, 0x200000, 0x400000
)

// newDevice returns a device with two queues for requests.
func newDevice(tb testing.TB, files FileSystem) *Device {
	tb.Helper()
	d, err := New(files, Config{Tag: "folder", Queues: 2})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// A driver drives queue 1 of a device, as a guest would.
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

func start(t testing.TB, dev *Device) *driver {
	t.Helper()
	d := &driver{t: t, dev: dev, ram: make([]byte, ramSize), irq: make(chan struct{}, 1)}
	d.m = mem.New(mem.Region{Bytes: d.ram})
	var err error
	layout := virtq.Layout{Size: queueSize, Desc: descAt, Driver: availAt, Device: usedAt}
	d.q, err = virtq.New(d.m, layout, virtq.Format{}, virtq.State{}, func() {
		select {
		case d.irq <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(0, nil); err != nil {
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

// chain makes a chain available: out, and room for an answer, in buffers of these
// lengths. The rest is one more buffer.
func (d *driver) chain(out []byte, outCuts []int, room int, inCuts []int) {
	copy(d.ram[outAt:], out)
	next := 0
	add := func(addr, n int, flags uint16) {
		e := d.ram[descAt+16*next:]
		le.PutUint64(e, uint64(addr))
		le.PutUint32(e[8:], uint32(n))
		le.PutUint16(e[12:], flags|1)
		le.PutUint16(e[14:], uint16(next+1))
		next++
	}
	cut := func(addr, n int, cuts []int, flags uint16) {
		for _, c := range append(cuts, n) {
			if c = min(c, n); c > 0 {
				add(addr, c, flags)
				addr, n = addr+c, n-c
			}
		}
	}
	cut(outAt, len(out), outCuts, 0)
	cut(inAt, room, inCuts, 2)
	if next == 0 {
		add(outAt, 0, 0)
	}
	last := d.ram[descAt+16*(next-1):]
	le.PutUint16(last[12:], le.Uint16(last[12:])&^1)
	le.PutUint16(d.ram[availAt+4+2*int(d.avail%queueSize):], 0)
	d.avail++
	idx, _ := d.m.U16(availAt + 2)
	idx.Store(d.avail)
}

// wait returns the used length of the next chain.
func (d *driver) wait() uint32 {
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
	return le.Uint32(e[4:])
}

// do makes a request and returns the written part of the answer.
func (d *driver) do(out []byte, outCuts []int, room int, inCuts []int) []byte {
	d.t.Helper()
	for i := range d.ram[inAt:][:room] {
		d.ram[inAt+i] = 0xee
	}
	d.chain(out, outCuts, room, inCuts)
	d.dev.Serve(1, d.q)
	n := int(d.wait())
	if n > room {
		d.t.Fatalf("%d bytes were written to %d", n, room)
	}
	for _, b := range d.ram[inAt+n:][:room-n] {
		if b != 0xee && le.Uint32(out[4:]) != opRead { // a read that was cut short may have written more
			d.t.Error("more was written than the device says")
			break
		}
	}
	return bytes.Clone(d.ram[inAt:][:n])
}

// ask returns a complete request.
func ask(opcode uint32, unique, node uint64, body ...byte) []byte {
	b := make([]byte, headerIn, headerIn+len(body))
	le.PutUint32(b[0:], uint32(headerIn+len(body)))
	le.PutUint32(b[4:], opcode)
	le.PutUint64(b[8:], unique)
	le.PutUint64(b[16:], node)
	return append(b, body...)
}

type answerHeader struct {
	length int
	errno  fuse.Status
	unique uint64
}

func reply(in []byte) answerHeader {
	if len(in) < headerOut {
		return answerHeader{}
	}
	return answerHeader{int(le.Uint32(in[0:])), fuse.Status(-int32(le.Uint32(in[4:]))), le.Uint64(in[8:])}
}

// numbers is a structure of 64-bit fields.
func numbers(v ...uint64) (b []byte) {
	for _, n := range v {
		b = le.AppendUint64(b, n)
	}
	return b
}
