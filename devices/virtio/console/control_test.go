package console

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"vmm/devices/virtio/virtiotest"
)

// ports returns a device with n ports, each with its own host.
func ports(t testing.TB, n int) (*Device, []*host) {
	t.Helper()
	var list []Stream
	var hosts []*host
	for i := range n {
		h := newHost()
		hosts = append(hosts, h)
		list = append(list, Stream{Name: fmt.Sprintf("port.%d", i), In: h, Out: h})
	}
	d, err := NewPorts(list...)
	if err != nil {
		t.Fatal(err)
	}
	return d, hosts
}

// queues returns the numbers of a port's queues.
func (g *guest) queues(port int) (in, out int) {
	p := g.dev.ports[port]
	return p.queueIn(), p.queueOut()
}

// TestPorts: each port is a separate stream in both directions, once a guest program
// has it open.
func TestPorts(t *testing.T) {
	dev, hosts := ports(t, 3)
	g := boot(t, dev)
	for i := range hosts {
		g.hears(message(uint32(i), eventPortOpen, 1))
		in, out := g.queues(i)
		hosts[i].kind(fmt.Sprint("for ", i))
		g.say(i, eventPortOpen, 1)
		g.reads(in, fmt.Sprint("for ", i))
		g.write(out, fmt.Sprint("from ", i))
		hosts[i].shows(t, fmt.Sprint("from ", i))
	}
	if len(g.says) != 0 {
		t.Errorf("the device also says %x", g.says)
	}
}

// TestClosedPort: while no guest program has the port open, nothing is read for it, and
// what was read waits.
func TestClosedPort(t *testing.T) {
	dev, hosts := ports(t, 1)
	g := boot(t, dev)
	in, _ := g.queues(0)
	h := hosts[0]
	h.kind("first")
	g.say(0, eventPortOpen, 0)
	if h.reads != 0 {
		t.Error("input is read for a port that nobody has open")
	}
	g.say(0, eventPortOpen, 1)
	g.reads(in, "first")
	h.wait(t, "a read", func() bool { return h.reads == 2 })
	g.say(0, eventPortOpen, 0)
	h.kind("second")
	g.until("input that waits", func() bool {
		p := dev.ports[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		return string(p.input) == "second"
	})
	if g.collect(in); g.got[in].Len() > 0 {
		t.Errorf("%q for a port that nobody has open", g.got[in])
	}
	g.say(0, eventPortOpen, 1)
	g.reads(in, "second")
}

// TestConnected: the guest is told which hosts connect and disconnect, but no more often
// than it listens.
func TestConnected(t *testing.T) {
	dev, _ := ports(t, 2)
	dev.SetConnected(1, false) // before there is a guest
	g := boot(t, dev)
	g.hears(message(0, eventPortOpen, 1))
	g.hears(message(1, eventPortOpen, 0))
	dev.SetConnected(1, true)
	g.hears(message(1, eventPortOpen, 1))
	dev.SetConnected(1, true)
	g.board.Pause()
	for range 1000 {
		dev.SetConnected(1, false)
		dev.SetConnected(1, true)
	}
	dev.SetConnected(1, false)
	g.board.Resume()
	g.hears(message(1, eventPortOpen, 0))
	if len(g.says) != 0 {
		t.Errorf("the device also says %d messages, %x", len(g.says), g.says[0])
	}
}

// TestControlBad: messages that are invalid, or come at the wrong time, change nothing.
func TestControlBad(t *testing.T) {
	dev, _ := ports(t, 2)
	g := boot(t, dev)
	for i := range 2 {
		g.hears(message(uint32(i), eventPortOpen, 1))
	}
	before, err := dev.Save()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]byte{
		{}, {1}, message(0, eventDeviceReady, 1)[:7],
		message(0, eventDeviceReady, 1), message(0, eventDeviceReady, 0), message(7, eventDeviceReady, 2),
		message(2, eventPortReady, 1), message(0xffffffff, eventPortOpen, 1), message(0, eventPortReady, 1),
		message(0, eventPortReady, 0), message(1, eventDeviceAdd, 1), message(1, 2, 1), message(1, 4, 1), message(1, 5, 1),
		message(0, eventPortName, 1), message(0, 0xffff, 1), message(0, eventPortOpen, 2),
	} {
		g.write(queueControlOut, string(append(m, 0)[:max(len(m), 1)]))
	}
	g.write(queueControlOut, strings.Repeat("\x00", 5000))
	after, err := dev.Save()
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("state %s, was %s (%v)", after, before, err)
	}
	if g.collect(queueControlIn); len(g.says) != 0 {
		t.Errorf("the device says %x", g.says)
	}
}

// TestControlSmall: a message that does not fit waits for a large enough buffer.
func TestControlSmall(t *testing.T) {
	dev, _ := ports(t, 1)
	b := virtiotest.NewBoard(t, nil)
	g := &guest{t: t, dev: dev, board: b}
	g.Driver = virtiotest.NewDriver(t, b, b.Add(virtiotest.MSIX, dev), false)
	defer b.Close()
	g.Start(virtiotest.Setup{Features: dev.Features(), Size: queueSize})
	g.say(0, eventDeviceReady, 1)
	q := g.Queues[queueControlIn]
	next := func(room int) (m []byte) {
		ticket := q.Submit(virtiotest.Request{In: room, Check: func(in []byte, n uint32) error {
			m = bytes.Clone(in[:n])
			return nil
		}})
		q.Kick()
		q.Wait(ticket)
		return m
	}
	for _, step := range []struct {
		room int
		want []byte
	}{
		{7, nil},
		{8, message(0, eventDeviceAdd, 0)},
	} {
		if got := next(step.room); !bytes.Equal(got, step.want) {
			t.Errorf("a buffer of %d: %x, want %x", step.room, got, step.want)
		}
	}
	g.say(0, eventPortReady, 1)
	for _, step := range []struct {
		room int
		want []byte
	}{
		{8, nil},
		{13, nil},
		{14, append(message(0, eventPortName, 0), "port.0"...)},
		{8, message(0, eventPortOpen, 1)},
	} {
		if got := next(step.room); !bytes.Equal(got, step.want) {
			t.Errorf("a buffer of %d: %x, want %x", step.room, got, step.want)
		}
	}
}

// TestPortsAlone: a driver that knows only one port has only the first.
func TestPortsAlone(t *testing.T) {
	dev, hosts := ports(t, 2)
	g := boot(t, dev)
	g.setup.Features = 0
	g.start()
	hosts[0].kind("input")
	g.reads(0, "input")
	g.write(1, "output")
	hosts[0].shows(t, "output")
	g.write(queueControlOut, string(message(0, eventDeviceReady, 1)))
	if g.collect(queueControlIn); g.got[queueControlIn].Len() != 0 {
		t.Error("control messages that were not negotiated")
	}
}

// TestRestorePorts: a guest that continues elsewhere has its ports as they were, and
// the input that had been read for it.
func TestRestorePorts(t *testing.T) {
	dev, hosts := ports(t, 2)
	g := boot(t, dev)
	in, out := g.queues(1)
	g.say(1, eventPortOpen, 1)
	g.hears(message(1, eventPortOpen, 1))
	hosts[1].wait(t, "a read", func() bool { return hosts[1].reads == 1 })
	g.board.Pause()
	hosts[1].kind("read before")
	g.until("input", func() bool {
		p := dev.ports[1]
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.input) > 0
	})
	g.restore()
	g.board.Resume()
	g.reads(in, "read before")
	g.write(out, "after")
	hosts[1].shows(t, "after")
	g.dev.SetConnected(1, false)
	g.hears(message(1, eventPortOpen, 0))
}

func TestNewPorts(t *testing.T) {
	for _, n := range []int{0, MaxPorts + 1} {
		if _, err := NewPorts(make([]Stream, n)...); err == nil {
			t.Errorf("%d ports", n)
		}
	}
	d, err := NewPorts(make([]Stream, MaxPorts)...)
	if err != nil || len(d.QueueSizes()) != 2*MaxPorts+2 {
		t.Errorf("%v", err)
	}
}

func TestLoadBad(t *testing.T) {
	for _, state := range []string{
		"", "[]", "{}", `{"Ports":[{}]}`, `{"Ports":[{},{},{}]}`, `{"Ports":[{},{"Pending":8}]}`, `{"Ports":[{},{"Pending":-1}]}`,
		fmt.Sprintf(`{"Ports":[{},{"Input":"%s"}]}`, strings.Repeat("AAAA", inputSize)), `{"Cols":65536,"Ports":[{},{}]}`,
	} {
		d, _ := ports(t, 2)
		if d.Load([]byte(state)) == nil {
			t.Errorf("loaded %.60s", state)
		}
	}
}
