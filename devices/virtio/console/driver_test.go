package console

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"vmm/devices/virtio/virtiotest"
)

// guest is a console driver like Linux's: it keeps input buffers in every queue, and
// what arrived in them.
type guest struct {
	*virtiotest.Driver
	t     testing.TB
	dev   *Device
	board *virtiotest.Board
	setup virtiotest.Setup
	given map[int][]*virtiotest.Ticket // input buffers, by queue
	got   map[int]*bytes.Buffer
	says  [][]byte // control messages that arrived
	room  int      // bytes of an input buffer
}

// boot starts the driver of a device, with ports if it has any.
func boot(t testing.TB, dev *Device) *guest {
	t.Helper()
	b := virtiotest.NewBoard(t, nil)
	g := &guest{t: t, dev: dev, board: b, room: 128}
	g.Driver = virtiotest.NewDriver(t, b, b.Add(virtiotest.MSIX, dev), false)
	g.setup = virtiotest.Setup{Features: dev.Features(), Size: queueSize}
	g.start()
	t.Cleanup(func() { g.board.Close() })
	return g
}

func (g *guest) start() {
	g.t.Helper()
	g.given, g.got, g.says = map[int][]*virtiotest.Ticket{}, map[int]*bytes.Buffer{}, nil
	g.Start(g.setup)
	for i := range g.Queues {
		g.got[i] = &bytes.Buffer{}
		if i%2 == 0 {
			g.fill(i)
		}
	}
	if g.setup.Features&featureMultiport != 0 {
		g.say(0, eventDeviceReady, 1)
		for i := range g.dev.ports {
			g.hears(message(uint32(i), eventDeviceAdd, 0))
			g.say(i, eventPortReady, 1)
			g.hears(append(message(uint32(i), eventPortName, 0), g.dev.ports[i].stream.Name...))
		}
	}
}

// fill gives the device input buffers.
func (g *guest) fill(queue int) {
	q := g.Queues[queue]
	for len(g.given[queue]) < 8 {
		r := virtiotest.Request{In: g.room, Check: func(in []byte, n uint32) error {
			if queue == queueControlIn && g.setup.Features&featureMultiport != 0 {
				g.says = append(g.says, bytes.Clone(in[:n]))
			} else {
				g.got[queue].Write(in[:n])
			}
			return nil
		}}
		g.given[queue] = append(g.given[queue], q.Submit(r))
	}
	q.Kick()
}

// collect takes what arrived, and gives new buffers for it.
func (g *guest) collect(queue int) {
	if g.Queues[queue].Collect() == 0 {
		return
	}
	left := g.given[queue][:0]
	for _, t := range g.given[queue] {
		if !t.Done {
			left = append(left, t)
		}
	}
	g.given[queue] = left
	g.fill(queue)
}

// until polls until cond is true.
func (g *guest) until(what string, cond func() bool) {
	g.t.Helper()
	for end := time.Now().Add(virtiotest.Deadline); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			g.t.Fatalf("timeout: %s", what)
		}
	}
}

// say sends a control message.
func (g *guest) say(port int, event, value uint16) {
	g.t.Helper()
	g.write(queueControlOut, string(message(uint32(port), event, value)))
}

// hears waits for a control message, and takes it.
func (g *guest) hears(want []byte) {
	g.t.Helper()
	find := func() bool {
		g.collect(queueControlIn)
		for i, m := range g.says {
			if bytes.Equal(m, want) {
				g.says = append(g.says[:i], g.says[i+1:]...)
				return true
			}
		}
		return false
	}
	g.until("a control message", find)
}

// write makes the guest write, and waits until the device has taken it.
func (g *guest) write(queue int, s string) {
	g.t.Helper()
	q := g.Queues[queue]
	ticket := q.Submit(virtiotest.Request{Out: []byte(s)})
	q.Kick()
	q.Wait(ticket)
}

// reads waits until the guest has read all of want, and no more.
func (g *guest) reads(queue int, want string) {
	g.t.Helper()
	g.until("input", func() bool {
		g.collect(queue)
		return g.got[queue].Len() >= len(want)
	})
	if got := g.got[queue].String(); got != want {
		g.t.Fatalf("the guest has read %d bytes %.80q, want %d bytes %.80q", len(got), got, len(want), want)
	}
	g.got[queue].Reset()
}

// restore makes the driver of a paused device continue with another device that has the
// same state and host.
func (g *guest) restore() {
	g.t.Helper()
	state, err := g.board.Slots[0].Save()
	if err != nil {
		g.t.Fatal(err)
	}
	pci, err := g.board.PCI.Save()
	if err != nil {
		g.t.Fatal(err)
	}
	var list []Stream
	for _, p := range g.dev.ports {
		list = append(list, p.stream)
	}
	g.dev = newDevice(g.dev.offered, list...)
	b := virtiotest.NewBoard(g.t, g.board.RAM)
	slot := b.Add(virtiotest.MSIX, g.dev)
	if err := b.PCI.Load(pci); err != nil {
		g.t.Fatal(err)
	}
	if err := slot.Load(state); err != nil {
		g.t.Fatal(err)
	}
	g.board.Close()
	g.board = b
	g.Attach(b, slot)
}
