package virtio_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"vmm/bus"
	"vmm/devices/pci"
	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/eventfd"
	"vmm/mem"
)

// TestConformance runs the suite with a slow device.
func TestConformance(t *testing.T) { virtiotest.Run(t, virtiotest.EchoTarget()) }

// TestStartFails: a device whose host resource is gone needs a reset, and works
// once the resource is back.
func TestStartFails(t *testing.T) {
	for _, kind := range []virtiotest.Kind{virtiotest.MSIX, virtiotest.INTx, virtiotest.MMIO} {
		t.Run(kind.String(), func(t *testing.T) {
			b := virtiotest.NewBoard(t, nil)
			defer b.Close()
			e := virtiotest.NewEcho()
			d := virtiotest.NewDriver(t, b, b.Add(kind, e), false)
			e.Fail.Store(true)
			d.Bring(virtiotest.Setup{})
			if got := d.Get(virtiotest.Status); got != 15|virtio.StatusNeedsReset {
				t.Errorf("status %#x", got)
			}
			d.Slot.Release()
			if err := d.Slot.Pause(virtiotest.Deadline); err != nil {
				t.Fatal(err)
			}
			d.Slot.Resume()
			e.Fail.Store(false)
			d.Start(virtiotest.Setup{})
			q := d.Queues[1]
			k := q.Submit(virtiotest.EchoTarget().Request(1, 9))
			q.Kick()
			q.Wait(k)
			if what := e.Bad.Load(); what != nil {
				t.Error(*what)
			}
		})
	}
}

// TestHost: a device wakes its queues, and reports changes of its configuration.
func TestHost(t *testing.T) {
	for _, kind := range []virtiotest.Kind{virtiotest.MSIX, virtiotest.INTx, virtiotest.MMIO} {
		b := virtiotest.NewBoard(t, nil)
		e := virtiotest.NewEcho()
		d := virtiotest.NewDriver(t, b, b.Add(kind, e), false)
		d.Start(virtiotest.Setup{})
		q := d.Queues[0]
		q.Submit(virtiotest.EchoTarget().Request(0, 1))
		e.Host.Wake(0) // instead of the driver
		q.Poll(1)
		was := d.Get(virtiotest.Generation)
		before := d.ConfigSignals().Count()
		e.Host.ConfigChanged()
		if kind == virtiotest.INTx {
			if v := d.Get(virtiotest.ISR); v&2 == 0 {
				t.Errorf("ISR %#x", v)
			}
		} else if d.ConfigSignals().Count() == before {
			t.Errorf("%v: no interrupt", kind)
		}
		if got := d.Get(virtiotest.Generation); got != was+1 {
			t.Errorf("%v: generation %d, was %d", kind, got, was)
		}
		if kind != virtiotest.MMIO {
			changeUnmastered(t, d, e, kind)
		}
		b.Close()
	}
}

// changeUnmastered changes the configuration while bus mastering is off. The pin is
// raised at once, because it is not a memory request. A message waits.
func changeUnmastered(t *testing.T, d *virtiotest.Driver, e *virtiotest.Echo, kind virtiotest.Kind) {
	d.BusMaster(false)
	before := d.ConfigSignals().Count()
	e.Host.ConfigChanged()
	n := d.ConfigSignals().Count() - before
	if kind == virtiotest.INTx && (n != 1 || d.Get(virtiotest.ISR)&2 == 0) || kind == virtiotest.MSIX && n != 0 {
		t.Errorf("%v: %d interrupts while bus mastering is off", kind, n)
	}
	if d.BusMaster(true); d.ConfigSignals().Count()-before != 1 {
		t.Errorf("%v: no interrupt after it", kind)
	}
}

// TestLog: a broken device logs one line, however often its driver tries.
func TestLog(t *testing.T) {
	var text bytes.Buffer
	var log = slog.New(slog.NewTextHandler(&text, nil))
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, mem.PageSize)})
	e := virtiotest.NewEcho()
	e.Fail.Store(true)
	d, err := virtio.NewMMIO(e, 0, &irq{}, virtio.Config{Mem: m, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	set := func(off uint64, v byte) { d.Write(off, []byte{v, 0, 0, 0}) }
	for _, w := range []struct {
		off uint64
		v   byte
	}{{0x70, 3}, {0x24, 1}, {0x20, 1}, {0x70, 11}, {0x70, 15}, {0x70, 15}, {0x50, 0}, {0x50, 1}} {
		set(w.off, w.v)
	}
	if n := strings.Count(text.String(), "\n"); n != 1 || !strings.Contains(text.String(), "told to fail") {
		t.Errorf("logged %d lines: %s", n, &text)
	}
	if err := d.Close(virtiotest.Deadline); err != nil {
		t.Error(err)
	}
}

type irq struct{}

func (*irq) Signal() {}

// bells records the doorbells and their addresses. It may refuse more.
type bells struct {
	mu     sync.Mutex
	at     map[virtio.Bell]*eventfd.FD
	refuse bool
}

func (b *bells) Assign(e *eventfd.FD, at virtio.Bell) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse {
		return errors.New("no more doorbells")
	}
	if b.at[at] != nil {
		return errors.New("there is one")
	}
	b.at[at] = e
	return nil
}

func (b *bells) Deassign(e *eventfd.FD, at virtio.Bell) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at[at] != e {
		return errors.New("there is none")
	}
	delete(b.at, at)
	return nil
}

// TestMMIODoorbells: one for each queue, by value.
func TestMMIODoorbells(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, mem.PageSize)})
	b := &bells{at: map[virtio.Bell]*eventfd.FD{}}
	d, err := virtio.NewMMIO(virtiotest.NewEcho(), 0xd000_0000, &irq{}, virtio.Config{Mem: m, Doorbells: b})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.at) != 2 || b.at[virtio.Bell{Addr: 0xd000_0050, Len: 4}] == nil || b.at[virtio.Bell{Addr: 0xd000_0050, Len: 4, Value: 1}] == nil {
		t.Errorf("MMIO: doorbells %v", b.at)
	}
	if err := d.Close(virtiotest.Deadline); err != nil {
		t.Error(err)
	}
	if _, err := virtio.NewMMIO(virtiotest.NewEcho(), 0, &irq{}, virtio.Config{Mem: m, Doorbells: &bells{refuse: true}}); err == nil {
		t.Error("MMIO has no doorbells and does not say so")
	}
}

// TestPCIDoorbells: one for each queue by address, and one by value at a port. They
// follow the BARs. A host that refuses doorbells is no obstacle.
func TestPCIDoorbells(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, mem.PageSize)})
	b := &bells{at: map[virtio.Bell]*eventfd.FD{}}
	p, err := virtio.NewPCI(virtiotest.NewEcho(), 0, virtio.Config{Mem: m, Doorbells: b})
	if err != nil {
		t.Fatal(err)
	}
	var memory, ports bus.Bus
	host := pci.NewBus(&memory, &ports, pci.Ident{}, []pci.Window{{Base: 0xc000_0000, End: 0xd000_0000}, {Base: 0x1000, End: 0x2000, Ports: true}}, nil)
	if err := p.Attach(host, nil); err != nil {
		t.Fatal(err)
	}
	cfg := func(reg uint64, v ...byte) { host.ECAM().Write(1<<15+reg, v) }
	move := func(base byte) { cfg(0x10, 0, 0, base, 0xc0, 0, 0, 0, 0) }
	for _, base := range []byte{0x10, 0x20} {
		move(base)
		cfg(4, 2, 0)
		addr := 0xc000_3000 + uint64(base)<<16
		if len(b.at) != 2 || b.at[virtio.Bell{Addr: addr}] == nil || b.at[virtio.Bell{Addr: addr + 4}] == nil {
			t.Errorf("PCI: doorbells %v, want them at %#x", b.at, addr)
		}
	}
	cfg(4, 0, 0)
	if len(b.at) != 0 {
		t.Errorf("PCI: doorbells %v without a BAR", b.at)
	}
	for _, port := range []byte{0x14, 0x1c} {
		cfg(0x18, 0, port, 0, 0)
		cfg(4, 1, 0)
		at := virtio.Bell{Addr: uint64(port) << 8, Port: true, Len: 2}
		one := at
		one.Value = 1
		if len(b.at) != 2 || b.at[at] == nil || b.at[one] == nil || b.at[at] == b.at[one] {
			t.Errorf("PCI: doorbells %v, want them at port %#x", b.at, at.Addr)
		}
	}
	cfg(4, 3, 0)
	if len(b.at) != 4 {
		t.Errorf("PCI: doorbells %v, want both kinds", b.at)
	}
	cfg(0x18, 0xf8, 0x0c, 0, 0) // 0xcf8: not in the window
	if len(b.at) != 2 {
		t.Errorf("PCI: doorbells %v, want those in memory", b.at)
	}
	cfg(4, 0, 0)
	b.refuse = true
	cfg(4, 2, 0)
	if err := p.Close(virtiotest.Deadline); err != nil {
		t.Error(err)
	}
}
