package console

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

var (
	_ virtio.Saver    = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
)

func TestTerminal(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{In: h, Out: h}))
	g.write(1, "login: ")
	h.shows(t, "login: ")
	h.kind("root\r")
	g.reads(0, "root\r")
	h.kind("typed before the end")
	h.end()
	g.reads(0, "typed before the end")
	g.write(1, "and on it goes")
	h.shows(t, "login: and on it goes")
}

// TestAwait: a guest gets no input before it prints. From then on it gets input, across
// a pause and a restore, but not across a reset.
func TestAwait(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{In: h, Out: h, Await: true}))
	h.kind("typed ahead")
	g.write(1, "$ ")
	g.reads(0, "typed ahead")
	h.wait(t, "a read", func() bool { return h.reads == 2 })
	g.board.Pause()
	h.kind("paused")
	g.board.Resume()
	g.reads(0, "paused")
	h.wait(t, "a read", func() bool { return h.reads == 3 })
	g.board.Pause()
	g.restore()
	g.board.Resume()
	g.dev.Type('!') // the old device may still read what is typed now
	g.reads(0, "!")
}

// TestAwaitReset: after a reset the wait begins anew.
func TestAwaitReset(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{In: h, Out: h, Await: true}))
	p := g.dev.ports[0]
	open := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.open
	}
	if open() {
		t.Error("open before it has printed")
	}
	g.write(1, "$ ")
	g.until("open", open)
	g.start()
	if open() {
		t.Error("open before it has printed again")
	}
	h.kind("typed while it restarts")
	g.write(1, "$ ")
	g.reads(0, "typed while it restarts")
}

// random returns n random bytes, so that any fault changes them.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// TestBulk: a MiB each way at once, with a host that is slow at times. Nothing is lost.
func TestBulk(t *testing.T) {
	const n = 1 << 20
	in, out := random(n), random(n)
	h := newHost()
	g := boot(t, NewTerminal(Stream{In: h, Out: h}))
	h.set(func() { h.typed.Write(in) })
	sent, round := 0, 0
	q := g.Queues[1]
	var got bytes.Buffer
	g.until("a MiB each way", func() bool {
		q.Collect()
		for sent < n && q.Room(2) {
			k := min(n-sent, 1+sent*31%997)
			q.Submit(virtiotest.Request{Out: out[sent : sent+k]})
			sent += k
			q.Kick()
		}
		round++
		h.set(func() { h.held = round%3 == 0 && sent < n })
		g.collect(0)
		got.Write(g.got[0].Bytes())
		g.got[0].Reset()
		return sent == n && got.Len() >= n
	})
	h.set(func() { h.held = false })
	h.shows(t, string(out))
	if !bytes.Equal(got.Bytes(), in) {
		t.Errorf("the guest has read %d bytes, and not those that were typed", got.Len())
	}
}

// TestSlowHost: output that the host does not take stays with the guest, even a part of
// one write, and across a pause and a restore.
func TestSlowHost(t *testing.T) {
	for _, restore := range []bool{false, true} {
		h := newHost()
		h.held = true
		g := boot(t, NewTerminal(Stream{Out: h}))
		q := g.Queues[1]
		const part = 12000
		all := random(10 * part)
		var tickets []*virtiotest.Ticket
		p := g.dev.ports[0]
		g.until("a full buffer", func() bool { // and another is being written
			q.Collect()
			for len(tickets) < q.Done+2 && len(tickets) < 10 {
				tickets = append(tickets, q.Submit(virtiotest.Request{Out: all[len(tickets)*part:][:part]}))
				q.Kick()
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.full && len(p.output) == outputSize
		})
		if q.Done > 2*outputSize/part {
			t.Fatal("the guest was told that more was taken than there is room for")
		}
		g.board.Pause()
		if restore {
			before := g.dev
			g.restore()
			h.set(func() { h.held = false })
			if err := before.Close(t.Context()); err != nil { // output is sent before another process begins
				t.Fatal(err)
			}
		}
		g.board.Resume()
		h.set(func() { h.held = false })
		g.until("the rest", func() bool {
			q.Collect()
			for len(tickets) < q.Done+2 && len(tickets) < 10 {
				tickets = append(tickets, q.Submit(virtiotest.Request{Out: all[len(tickets)*part:][:part]}))
				q.Kick()
			}
			return q.Done == 10
		})
		h.shows(t, string(all))
	}
}

// TestResetInWrite: a reset in the middle of a write takes nothing from the next write.
func TestResetInWrite(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{Out: h}))
	h.set(func() { h.held = true })
	q, p := g.Queues[1], g.dev.ports[0]
	sent := 0
	g.until("a part of a write in a full buffer", func() bool {
		if q.Collect(); sent == q.Done {
			q.Submit(virtiotest.Request{Out: bytes.Repeat([]byte{'x'}, 15000)})
			sent++
			q.Kick()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.full && p.skip > 0
	})
	g.start() // as after a crash of the guest
	h.set(func() { h.held = false })
	g.write(1, "the next")
	h.wait(t, "the next write", func() bool { return strings.HasSuffix(h.screen.String(), "xxthe next") })
}

// TestQueueReset: the part that was taken of a chain does not count for another queue.
func TestQueueReset(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 4*mem.PageSize)})
	p := NewTerminal(Stream{Out: newHost()}).ports[0]
	l := virtq.Layout{Size: 8, Desc: 0, Driver: 0x1000, Device: 0x2000}
	var queues [2]*virtq.Queue
	for i := range queues {
		q, err := virtq.New(m, l, virtq.Format{}, virtq.State{}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		queues[i] = q
	}
	for _, test := range []struct {
		name string
		do   func()
		want uint64
	}{
		{"the same queue", func() { p.transmitQueue(queues[0]) }, 5},
		{"after a pause", func() { p.stop(); p.start(nil, featureMultiport); p.transmitQueue(queues[1]) }, 5},
		{"after a reset of the queue", func() { p.transmitQueue(queues[0]) }, 0},
	} {
		p.skip = 5
		if test.do(); p.skip != test.want {
			t.Errorf("%s: %d bytes of the next chain are skipped, want %d", test.name, p.skip, test.want)
		}
	}
}

// TestHostGone: a guest continues when the reader of its output is gone.
func TestHostGone(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{Out: h}))
	h.set(func() { h.err = errors.New("broken pipe") })
	for range 100 {
		g.write(1, strings.Repeat("x", 2000))
	}
	g.board.Pause()
	if err := g.dev.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("Close: %v", err)
	}
	none := boot(t, NewTerminal(Stream{}))
	for range 100 {
		none.write(1, strings.Repeat("x", 2000))
	}
}

// TestClose: the last output is delivered, as long as the caller waits for it.
func TestClose(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{Out: h}))
	h.set(func() { h.held = true })
	g.write(1, "last words")
	g.board.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := g.dev.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close of a blocked console: %v", err)
	}
	h.set(func() { h.held = false })
	if err := g.dev.Close(t.Context()); err != nil {
		t.Error(err)
	}
	h.shows(t, "last words")
	g.board.Resume()
	g.write(1, "too late")
	h.shows(t, "last words")
}

func TestSize(t *testing.T) {
	dev := NewTerminal(Stream{})
	dev.SetSize(80, 25) // before there is a guest
	g := boot(t, dev)
	size := func() string {
		b := make([]byte, 4)
		g.ReadConfig(0, b)
		return string(b)
	}
	if got := size(); got != "\x50\x00\x19\x00" {
		t.Errorf("%x", got)
	}
	c := g.ConfigSignals()
	before := c.Count()
	dev.SetSize(80, 25)
	if c.Count() != before {
		t.Error("told of what has not changed")
	}
	dev.SetSize(0x1234, 0x5678)
	g.until("a change", func() bool { return c.Count() == before+1 })
	if got := size(); got != "\x34\x12\x78\x56" {
		t.Errorf("%x", got)
	}
	g.setup.Features = 0
	g.start()
	before = c.Count()
	dev.SetSize(1, 1)
	if c.Count() != before {
		t.Error("told without VIRTIO_CONSOLE_F_SIZE")
	}
}

// TestSizeAwait: a guest may not have read the size at its start. It is told of the size
// once it has written, and not before; and again after a pause.
func TestSizeAwait(t *testing.T) {
	dev := NewTerminal(Stream{Await: true})
	dev.SetSize(80, 25)
	g := boot(t, dev)
	c := g.ConfigSignals()
	before := c.Count()
	dev.SetSize(81, 26)
	if c.Count() != before {
		t.Error("told before it has written")
	}
	g.write(1, "$ ")
	g.until("the first size", func() bool { return c.Count() == before+1 })
	g.write(1, "more")
	dev.SetSize(100, 30)
	g.until("a change", func() bool { return c.Count() == before+2 })
	g.board.Pause()
	dev.SetSize(120, 40)
	if c.Count() != before+2 {
		t.Error("told while it is paused")
	}
	g.board.Resume()
	g.until("a change over a pause", func() bool { return c.Count() > before+2 })
}

// TestEmergency: the guest writes bytes to emerg_wr, which needs no driver.
func TestEmergency(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{Out: h}))
	g.board.Pause()
	g.WriteConfig(configEmergency, []byte{'a', 'x', 'x', 'x'})
	g.WriteConfig(configEmergency, []byte{'b'})
	g.WriteConfig(configPorts, []byte{0, 0, 0, 0, 'c'})
	for _, off := range []uint64{0, 7, 9, 12} { // not where the field begins
		g.WriteConfig(off, []byte{'?'})
	}
	h.shows(t, "abc")
	h.set(func() { h.held = true })
	for range 3 * outputSize { // bytes without room are lost, and nothing blocks
		g.dev.WriteConfig(configEmergency, []byte{'z'})
	}
	h.set(func() { h.held = false })
	if err := g.dev.Close(t.Context()); err != nil {
		t.Error(err)
	}
	h.wait(t, "the screen", func() bool { return h.screen.Len() > outputSize && h.screen.Len() <= 3+2*outputSize })
	ports, err := NewPorts(Stream{Name: "x", Out: h})
	if err != nil {
		t.Fatal(err)
	}
	ports.WriteConfig(configEmergency, []byte{'?'})
}

// TestType: an inserted byte keeps its place behind what was read.
func TestType(t *testing.T) {
	h := newHost()
	g := boot(t, NewTerminal(Stream{In: h}))
	h.kind("before")
	g.reads(0, "before")
	h.wait(t, "a read", func() bool { return h.reads == 2 })
	g.dev.Type(0x0f)
	h.kind("after")
	g.reads(0, "\x0fafter")
	g.board.Pause()
	for range 3 * inputSize {
		g.dev.Type('x')
	}
	p := g.dev.ports[0]
	if n := len(p.input); n > inputSize || n == 0 {
		t.Errorf("%d bytes wait for a guest that is paused", n)
	}
	g.board.Resume()
}

// TestInputBound: no more is read than the guest takes.
func TestInputBound(t *testing.T) {
	h := newHost()
	h.typed.Write(random(10 * inputSize))
	g := boot(t, NewTerminal(Stream{In: h}))
	g.until("input", func() bool {
		g.Queues[0].Collect() // and no new buffers
		for _, ticket := range g.given[0] {
			if !ticket.Done {
				return false
			}
		}
		return true
	})
	h.set(func() {
		if n := 10*inputSize - h.typed.Len() - 8*g.room; n > inputSize {
			t.Errorf("%d bytes were read ahead of the guest", n)
		}
	})
}
