package virtiotest

import (
	"bytes"
	"testing"

	"vmm/devices/virtio"
	"vmm/mem"
)

// secret is RAM that no input can name except by guessing 64 bits.
const secret = mem.Addr(0x5a5a_a5a5_5a5a_0000)

// A fuzzer plays an input: each byte chooses what a bad guest does next.
type fuzzer struct {
	in []byte
	d  *Driver
}

func (f *fuzzer) byte() byte {
	if len(f.in) == 0 {
		return 0
	}
	b := f.in[0]
	f.in = f.in[1:]
	return b
}

// value returns a value, often a meaningful one.
func (f *fuzzer) value() uint32 {
	switch b := f.byte(); b % 8 {
	case 0:
		return uint32(b >> 3)
	case 1:
		return uint32(lowBase) + uint32(f.byte())<<8
	case 2:
		return 1 << (b >> 3)
	case 3:
		return 0xffffffff
	default:
		return uint32(f.byte())<<24 | uint32(f.byte())<<16 | uint32(f.byte())<<8 | uint32(b)
	}
}

func (f *fuzzer) step() {
	d := f.d
	switch f.byte() % 8 {
	case 0:
		d.Set(Register(f.byte())%registers, f.value())
	case 1:
		d.Get(Register(f.byte()) % registers)
	case 2: // any place, any width
		addr, _ := d.access.register(DeviceFeature)
		addr = addr&^0xfff + uint64(f.byte())<<6 + uint64(f.byte()&0x3f)
		p := make([]byte, 1+f.byte()%8)
		d.Board.Memory.Read(addr, p)
		for i := range p {
			p[i] = f.byte()
		}
		d.Board.Memory.Write(addr, p)
	case 3: // the initialization, up to some step
		d.Set(Status, 0)
		d.rings.reset()
		d.Queues = nil
		features := uint64(f.byte()&1) << 34
		features |= uint64(f.byte()&3) << 28
		steps := d.steps(Setup{Features: features | virtio.FeatureRingReset, Size: 8})
		for _, step := range steps[:min(len(steps), int(f.byte())%16)] {
			if step.name != "FEATURES_OK" && step.name != "queue" && step.name != "enable" {
				step.do()
				continue
			}
			d.Set(Status, 11)
			for _, q := range d.Queues { // like place, but expects nothing
				d.Set(QueueSelect, uint32(q.index))
				d.Set(QueueSize, uint32(q.Layout.Size))
				q.set(QueueDesc, q.Layout.Desc)
				q.set(QueueDriver, q.Layout.Driver)
				q.set(QueueDevice, q.Layout.Device)
				d.Set(QueueEnable, 1)
			}
		}
	case 4: // the content of a ring
		a := lowBase + mem.Addr(f.byte())<<3
		w, err := d.Board.RAM.Words(a, 2)
		if err == nil {
			w[0], w[1] = f.value(), f.value()
		}
	case 5:
		f.notify(f.byte())
	case 6:
		if p, ok := d.access.(*pciAccess); ok {
			p.setCfg(int(f.byte()), 1<<(f.byte()%3), f.value())
		}
	case 7: // a chain
		if len(d.Queues) > 0 {
			q := d.Queues[int(f.byte())%len(d.Queues)]
			q.ring.raw([]desc{{lowBase + mem.Addr(f.value()&0xffff), f.value() & 0xffff, uint16(f.value()), uint16(f.byte())}}, uint16(f.byte()%16))
			q.Notify()
		}
	}
}

// notify kicks a queue, in any of the possible ways.
func (f *fuzzer) notify(b byte) {
	if p, ok := f.d.access.(*pciAccess); ok {
		p.bell = p.bells[b>>2&1]
	}
	f.d.notify(int(b & 3))
}

// FuzzTransport: whatever a guest does to a device's registers and rings, nothing
// panics, a reset ends, RAM unknown to the guest is not written, and the device works
// afterwards.
func FuzzTransport(f *testing.F) {
	for kind := range byte(3) {
		f.Add([]byte{kind})
		f.Add([]byte{kind, 3, 1, 3, 15, 7, 0, 1, 9, 2, 2, 2, 0, 5, 0})
		f.Add([]byte{kind, 3, 0, 3, 15, 4, 0, 1, 3, 3, 5, 0, 0, 6, 0, 3, 1, 0, 15})
		f.Add([]byte{kind, 0, 5, 0, 0, 12, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0x44, 2, 3, 6, 0x50, 1, 3, 5, 9})
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || len(in) > 512 {
			return
		}
		ram := mem.New(mem.Region{Base: lowBase, Bytes: make([]byte, lowSize)}, mem.Region{Base: secret, Bytes: bytes.Repeat([]byte{0x77}, mem.PageSize)})
		b := NewBoard(t, ram)
		defer b.Close()
		d := NewDriver(t, b, b.Add(kinds[in[0]%3], NewEcho()), false)
		z := fuzzer{in[1:], d}
		for len(z.in) > 0 {
			z.step()
		}
		d.access.find()
		d.reset()
		if page := b.bytes(secret, mem.PageSize); !bytes.Equal(page, bytes.Repeat([]byte{0x77}, mem.PageSize)) {
			t.Error("RAM that was never named was written")
		}
		d.Start(Setup{Size: 8})
		for _, q := range d.Queues {
			k := q.Submit(echoRequest(q.index, 5))
			q.Kick()
			q.Wait(k)
		}
	})
}
