package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"vmm/devices/virtio"
	"vmm/devices/virtio/blk"
	"vmm/devices/virtio/rng"
	"vmm/disk"
	"vmm/eventfd"
	"vmm/guest/payload"
	"vmm/kvm"
)

// Where the guest of newQueue has its queue. The chain is the same each time, and every
// entry of the available ring is the first descriptor.
const (
	queueDesc   = 0x10_0000
	queueAvail  = 0x10_1000
	queueUsed   = 0x10_2000
	queueHeader = 0x10_3000 // of a disk request, followed by its status
	queueStatus = queueHeader + 16
	queueData   = 0x10_4000
	queueBase   = 0xd000_0000 // the device's registers
	queueSize   = 64

	queueRequests = 5000 // per run
	queueWarmUp   = 200
)

// Registers of virtio 1.2 §4.2.2.
const (
	regDriverFeatures    = 0x020
	regDriverFeaturesSel = 0x024
	regQueueNum          = 0x038
	regQueueReady        = 0x044
	regQueueNotify       = 0x050
	regStatus            = 0x070
	regQueueDesc         = 0x080
	regQueueDriver       = 0x090
	regQueueDevice       = 0x0a0
)

// newQueue times requests from a guest in ring 3 to a device, one at a time: store,
// notification, device, used ring, which the guest polls.
func newQueue(f files) *report {
	r := &report{Bench: "queue", Unit: "ns", against: []string{"rng by exits"}, parts: []string{"allocations/request"}, Notes: []string{
		fmt.Sprintf("A guest in ring 3 makes a request, notifies and waits for the used ring, %d times a run; mean.", queueRequests),
		"eventfd: KVM signals the queue's eventfd (ioeventfd); exits: the notification is an exit that the run loop forwards.",
		"allocations: on Go's heap, by all goroutines, ReadMemStats's own among them.",
	}}
	random := func(bell bool) func(context.Context) (run, error) {
		return func(ctx context.Context) (run, error) {
			return queue(ctx, rng.New(nil, 0), [][2]uint32{{queueData, 64}}, bell)
		}
	}
	r.Entries = []*entry{
		{Name: "rng", measure: random(true)},
		{Name: "rng by exits", measure: random(false)},
		{Name: "blk", measure: func(ctx context.Context) (run, error) { return queueRead(ctx, filepath.Join(f.scratch, "queue.img")) }},
	}
	return r
}

// queueRead makes the guest read a disk whose reads need not wait.
func queueRead(ctx context.Context, path string) (run, error) {
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		return run{}, err
	}
	image, err := disk.Open(path, disk.Options{ReadOnly: true})
	if err != nil {
		return run{}, err
	}
	defer image.Close()
	d, err := blk.New(image, blk.Config{})
	if err != nil {
		return run{}, err
	}
	return queue(ctx, d, [][2]uint32{{queueHeader, 16}, {queueData, 4096}, {queueStatus, 1}}, true)
}

// queue makes one run.
func queue(ctx context.Context, d virtio.Device, chain [][2]uint32, bell bool) (run, error) {
	code := payload.Code(
		payload.Repeat(queueWarmUp, payload.Request(queueAvail+2, queueUsed+2, queueBase+regQueueNotify)), payload.Out8(pioPort, 'w'),
		payload.Repeat(queueRequests, payload.Request(queueAvail+2, queueUsed+2, queueBase+regQueueNotify)), payload.Out8(pioPort, 'e'),
	)
	g, err := newRing3Guest(code)
	if err != nil {
		return run{}, err
	}
	defer g.close()
	cfg := virtio.Config{Mem: g.mem}
	if bell {
		cfg.Doorbells = bells{g.vm}
	}
	t, err := virtio.NewMMIO(d, queueBase, nobody{}, cfg)
	if err != nil {
		return run{}, err
	}
	defer t.Close(pioLimit)
	if err := g.drive(t, chain); err != nil {
		return run{}, err
	}
	return g.measure(ctx, "allocations/request", queueRequests, func(halt *atomic.Bool) error {
		return g.until(t, halt, 'w')
	}, func(halt *atomic.Bool) error {
		return g.until(t, halt, 'e')
	})
}

// drive initializes the device as a driver does. The device writes to the chain's
// descriptors from the second on, or to its only one.
func (g *ring3Guest) drive(t *virtio.MMIO, chain [][2]uint32) error {
	ram, err := g.mem.Slice(0, pioMemory)
	if err != nil {
		return err
	}
	const next, write, noInterrupt = 1, 2, 1
	le := binary.LittleEndian
	for i, d := range chain {
		var flags uint16
		if i < len(chain)-1 {
			flags |= next
		}
		if i > 0 || len(chain) == 1 {
			flags |= write
		}
		b := ram[queueDesc+16*i:]
		le.PutUint64(b, uint64(d[0]))
		le.PutUint32(b[8:], d[1])
		le.PutUint16(b[12:], flags)
		le.PutUint16(b[14:], uint16(i+1))
	}
	le.PutUint16(ram[queueAvail:], noInterrupt)
	for _, w := range [][2]uint32{
		{regStatus, 1}, {regStatus, 3}, // ACKNOWLEDGE, DRIVER
		{regDriverFeaturesSel, 1}, {regDriverFeatures, 1}, // VIRTIO_F_VERSION_1
		{regStatus, 11}, // FEATURES_OK
		{regQueueNum, queueSize}, {regQueueDesc, queueDesc}, {regQueueDriver, queueAvail}, {regQueueDevice, queueUsed}, {regQueueReady, 1},
		{regStatus, 15}, // DRIVER_OK
	} {
		t.Write(uint64(w[0]), le.AppendUint32(nil, w[1]))
	}
	var status [4]byte
	if t.Read(regStatus, status[:]); status[0] != 15 {
		return fmt.Errorf("the device has status %#x", status[0])
	}
	return nil
}

// until runs the guest until it writes the byte end to the port.
func (g *ring3Guest) until(t *virtio.MMIO, halt *atomic.Bool, end byte) error {
	for !halt.Load() {
		e, err := g.cpu.Run()
		switch {
		case err != nil:
			return err
		case e.Reason == kvm.ExitIO && e.Write && e.Addr == pioPort && e.Data[0] == end:
			return nil
		case e.Reason == kvm.ExitMMIO && e.Write && e.Addr == queueBase+regQueueNotify:
			t.Write(regQueueNotify, e.Data)
		case e.Reason != kvm.ExitIntr:
			return fmt.Errorf("exit %v at %#x", e.Reason, e.Addr)
		}
	}
	return fmt.Errorf("the requests take longer than %v", pioLimit)
}

// bells makes doorbells as machine does.
type bells struct{ vm *kvm.VM }

func (b bells) Assign(e *eventfd.FD, w virtio.Bell) error {
	return b.vm.AssignIOEventFD(e.Fd(), kvm.IOEvent{Addr: w.Addr, Len: uint32(w.Len), Match: true, Data: uint64(w.Value)})
}

func (b bells) Deassign(e *eventfd.FD, w virtio.Bell) error {
	return b.vm.DeassignIOEventFD(e.Fd(), kvm.IOEvent{Addr: w.Addr, Len: uint32(w.Len), Match: true, Data: uint64(w.Value)})
}

// nobody ignores interrupts, which the driver does not want.
type nobody struct{}

func (nobody) Signal() {}
