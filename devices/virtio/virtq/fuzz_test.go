package virtq_test

import (
	"bytes"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

const fuzzSize = 2 * mem.PageSize

// FuzzQueue lets the fuzzer be the guest: the image of its RAM, the place of the queue,
// and a script of what then happens. The device must not panic, must not hold more
// chains than the queue has descriptors, and must write only to its own parts of the
// ring.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{}, []byte{0, 1, 0}, uint16(8), uint8(0), uint16(0), uint16(0x400), uint16(0x800), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, image, script []byte, size uint16, format uint8, desc, driver, device, availState, usedState uint16) {
		ram := make([]byte, fuzzSize)
		copy(ram, image)
		z := &fuzzed{
			T: t, ram: ram, packed: format&1 != 0,
			layout: virtq.Layout{Size: size, Desc: mem.Addr(desc), Driver: mem.Addr(driver), Device: mem.Addr(device)},
		}
		q, err := virtq.New(mem.New(mem.Region{Base: 0, Bytes: ram}), z.layout,
			virtq.Format{Packed: z.packed, Indirect: format&2 != 0, EventIdx: format&4 != 0},
			virtq.State{Avail: availState, Used: usedState}, func() {})
		if err != nil {
			return
		}
		z.q = q
		z.run(script[:min(len(script), 512)])
	})
}

type fuzzed struct {
	*testing.T
	q      *virtq.Queue
	ram    []byte
	packed bool
	layout virtq.Layout
	held   []*virtq.Chain
}

// run runs the script: two bits an operation.
func (z *fuzzed) run(script []byte) {
	for len(script) > 0 {
		op := script[0]
		script = script[1:]
		switch op & 3 {
		case 0:
			z.pop()
		case 1:
			z.push(int(op >> 2))
		case 2: // the guest writes
			if len(script) >= 3 {
				z.ram[int(le.Uint16(script))%len(z.ram)] = script[2]
				script = script[3:]
			}
		case 3: // the guest makes chains available, in a split ring
			at := int(z.layout.Driver+2) % (len(z.ram) - 1)
			le.PutUint16(z.ram[at:], le.Uint16(z.ram[at:])+uint16(op>>2))
		}
	}
	for len(z.held) > 0 {
		z.push(0)
	}
	z.q.Stop()
	if z.q.Pop() != nil {
		z.Fatal("a chain from a stopped queue")
	}
	select {
	case <-z.q.Drained():
		z.q.State()
	default:
		z.Fatal("not drained")
	}
}

func (z *fuzzed) pop() {
	before := bytes.Clone(z.ram)
	c := z.q.Pop()
	z.sameBut(before, "Pop", z.signals)
	if c == nil {
		return
	}
	if z.q.Err() != nil {
		z.Fatal("a chain of a broken queue")
	}
	z.held = append(z.held, c)
	if len(z.held) > int(z.layout.Size) {
		z.Fatalf("%d chains of a queue of %d", len(z.held), z.layout.Size)
	}
	if n := len(c.Readable) + len(c.Writable); n > int(z.layout.Size) {
		z.Fatalf("%d buffers in a chain of a queue of %d", n, z.layout.Size)
	}
	for _, b := range append(c.Readable[:len(c.Readable):len(c.Readable)], c.Writable...) {
		if len(b) == 0 || len(b) > len(z.ram) {
			z.Fatalf("a buffer of %d bytes", len(b))
		}
	}
}

// push uses a held chain as a device would, and pushes it.
func (z *fuzzed) push(i int) {
	if len(z.held) == 0 {
		return
	}
	i %= len(z.held)
	c := z.held[i]
	z.held = append(z.held[:i], z.held[i+1:]...)
	var p [24]byte
	c.ReadFull(p[:])
	if status := c.CutLast(1); status != nil {
		status[0][0] ^= 1
	}
	n := c.Write(p[:])
	before := bytes.Clone(z.ram)
	z.q.Push(c, uint32(n))
	z.sameBut(before, "Push", z.uses)
}

// signals reports whether the device asks for kicks at a.
func (z *fuzzed) signals(a mem.Addr) bool {
	device, size := z.layout.Device, mem.Addr(z.layout.Size)
	if z.packed {
		return a >= device && a < device+4
	}
	event := device + 4 + 8*size
	return a >= device && a < device+4 || a >= event && a < event+2
}

// uses reports whether the device writes what is used at a: the used ring, or len, id
// and flags of a descriptor.
func (z *fuzzed) uses(a mem.Addr) bool {
	device, size := z.layout.Device, mem.Addr(z.layout.Size)
	if z.packed {
		return a >= z.layout.Desc && a < z.layout.Desc+16*size && a%16 >= 8
	}
	return a >= device && a < device+4+8*size
}

// sameBut checks that RAM is as before except where may allows a change.
func (z *fuzzed) sameBut(before []byte, what string, may func(mem.Addr) bool) {
	if bytes.Equal(before, z.ram) {
		return
	}
	for a := range z.ram {
		if z.ram[a] != before[a] && !may(mem.Addr(a)) {
			z.Fatalf("%s wrote to %#x", what, a)
		}
	}
}
