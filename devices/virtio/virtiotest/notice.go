package virtiotest

import (
	"bytes"
	"testing"

	"vmm/devices/virtio"
)

// Notice checks that a driver is told of a change of its device's configuration that
// is made while the device is paused, or before a restored device is resumed. The
// driver must be told on resume, by an interrupt and a new generation. change makes a
// configuration that differs from the current one. ready, if not nil, is what the
// driver does before it listens for changes.
func Notice(t *testing.T, fresh func() virtio.Device, change func(virtio.Device), ready func(*Driver)) {
	for _, kind := range []Kind{MSIX, INTx, MMIO} {
		for _, name := range []string{"pause", "saved with it", "restored"} {
			t.Run(kind.String()+"/"+name, func(t *testing.T) {
				n := &notice{change: change, b: NewBoard(t, nil), dev: fresh()}
				change(n.dev) // before there is a driver to tell
				n.d = NewDriver(t, n.b, n.b.Add(kind, n.dev), false)
				n.d.Start(Setup{Features: n.dev.Features()})
				if n.told() {
					t.Error("told at its start, of what it reads then")
				}
				if ready != nil {
					ready(n.d)
				}
				n.told()
				n.b.Pause()
				n.heard(t, func() {
					if name != "restored" {
						change(n.dev)
					}
					if name != "pause" {
						n.restore(t, fresh(), kind)
					}
					if name == "restored" {
						change(n.dev)
					}
					n.b.Resume()
				})
				n.heard(t, func() { change(n.dev) }) // while it runs
				before := n.d.Get(Generation)
				n.b.Pause()
				n.b.Resume()
				if got := n.d.Get(Generation); got != before {
					t.Errorf("generation %d, was %d: nothing has changed", got, before)
				}
				n.b.Close()
			})
		}
	}
}

type notice struct {
	change func(virtio.Device)
	b      *Board
	dev    virtio.Device
	d      *Driver
	seen   int64
}

// told reports whether the driver was told since the last call.
func (n *notice) told() bool {
	if n.d.Slot.Kind != MSIX {
		return n.d.access.handle()&2 != 0
	}
	was := n.seen
	n.seen = n.d.ConfigSignals().Count()
	return n.seen != was
}

// restore continues with another device, on another board.
func (n *notice) restore(t *testing.T, dev virtio.Device, kind Kind) {
	saved := n.b.Save()
	b := NewBoard(t, n.b.RAM)
	slot := b.Add(kind, dev)
	b.Load(saved)
	n.b.Close()
	n.b, n.dev, n.seen = b, dev, 0
	n.d.Attach(b, slot)
}

// heard checks that the driver is told of what do does.
func (n *notice) heard(t *testing.T, do func()) {
	t.Helper()
	before, config := n.d.Get(Generation), make([]byte, 64)
	n.d.ReadConfig(0, config)
	do()
	after := make([]byte, len(config))
	n.d.ReadConfig(0, after)
	if bytes.Equal(config, after) {
		t.Error("the configuration has not changed")
	}
	if !n.told() {
		t.Error("the driver was not told")
	}
	if got := n.d.Get(Generation); got == before {
		t.Errorf("generation %d before and after", got)
	}
}
