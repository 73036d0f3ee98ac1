package net

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/ethernet"
)

// A card is a device with a driver that has started it.
type card struct {
	testing.TB
	wire   *wire
	dev    *Device
	d      *virtiotest.Driver
	pieces [][]byte // the content of the used receive buffers
}

const allRings = virtio.FeatureEventIdx | virtio.FeatureIndirectDesc

// newCard starts a card with all features except those in without, plus those in with.
func newCard(t testing.TB, without, with uint64) *card {
	t.Helper()
	w := newWire(ethernet.Info{Pairs: 1, MTU: 1500, Offload: testOffload})
	w.keep = true
	dev, err := New(w, testMAC)
	if err != nil {
		t.Fatal(err)
	}
	b := virtiotest.NewBoard(t, nil)
	c := &card{TB: t, wire: w, dev: dev}
	c.d = virtiotest.NewDriver(t, b, b.Add(virtiotest.MSIX, dev), false)
	c.d.Start(virtiotest.Setup{Features: dev.Features()&^without | with, Size: 64})
	t.Cleanup(b.Close)
	return c
}

// room gives the card n receive buffers of the given size.
func (c *card) room(n, size int) {
	c.Helper()
	for range n {
		c.d.Queues[0].Submit(virtiotest.Request{In: size, Check: func(in []byte, n uint32) error {
			c.pieces = append(c.pieces, bytes.Clone(in[:n]))
			return nil
		}})
	}
	c.d.Queues[0].Kick()
}

// next waits for a frame, and returns it with its header and the number of buffers that
// it fills.
func (c *card) next() (h ethernet.Header, f []byte, buffers int) {
	c.Helper()
	complete := func() bool {
		c.d.Queues[0].Collect()
		return len(c.pieces) > 0 && len(c.pieces) >= int(le.Uint16(c.pieces[0][10:]))
	}
	for end := time.Now().Add(virtiotest.Deadline); !complete(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			c.Fatalf("no frame; %d buffers", len(c.pieces))
		}
	}
	buffers = int(le.Uint16(c.pieces[0][10:]))
	if buffers == 0 {
		c.Fatal("a frame in no buffer")
	}
	all := bytes.Join(c.pieces[:buffers], nil)
	c.pieces = c.pieces[buffers:]
	return ethernet.Header(all), all[ethernet.HeaderSize:], buffers
}

// TestReceive: frames of many lengths arrive whole and in order, whatever the size of
// the buffers: small frames after large ones and the other way round.
func TestReceive(t *testing.T) {
	for _, with := range []uint64{allRings, allRings | virtio.FeatureRingPacked, virtio.FeatureRingPacked} {
		for _, size := range []int{20, 256, 1526} {
			t.Run(fmt.Sprintf("%#x/%d", with, size), func(t *testing.T) {
				c := newCard(t, allRings&^with, with)
				lengths := []int{60, 61, 1514, 14, 60, 3 * size, 60, size - ethernet.HeaderSize, size - ethernet.HeaderSize + 1, 5 * size, 5 * size, 100, 5 * size}
				for i, n := range lengths {
					if n = max(n, ethernet.HeaderLen); n > 15*size {
						n = 15 * size
					}
					f := frame{bytes: testFrame(n, i)}
					f.header.Set(NeedsChecksum, ethernet.GSOTCPv4|ethernet.GSOECN, 54, 1448, 34, 16)
					c.room(1+n/size, size)
					c.wire.put(f)
					c.wire.put(frame{bytes: testFrame(64, i)}) // may wait for room
					h, got, _ := c.next()
					f.header.SetBuffers(le.Uint16(h[10:]))
					if !bytes.Equal(got, f.bytes) || h != f.header {
						t.Fatalf("frame %d of %d bytes: got %d bytes, header % x", i, n, len(got), h)
					}
					c.room(1+64/size+1, size)
					if _, got, _ := c.next(); !bytes.Equal(got, testFrame(64, i)) {
						t.Fatalf("the frame behind frame %d: % x", i, got)
					}
				}
				if s := c.dev.Stats().Received; s.Frames != uint64(2*len(lengths)) || s.Dropped+s.Errors != 0 {
					t.Errorf("stats: %+v", s)
				}
			})
		}
	}
}

// NeedsChecksum is short for ethernet.NeedsChecksum.
const NeedsChecksum = ethernet.NeedsChecksum

// TestUnmerged: a driver that does not merge buffers gets each frame in one buffer, and
// no frame that does not fit.
func TestUnmerged(t *testing.T) {
	c := newCard(t, featureMergeable, 0)
	c.room(3, 1526)
	c.wire.put(frame{bytes: testFrame(1514, 1)})
	c.wire.put(frame{bytes: testFrame(1515, 2)})
	c.wire.put(frame{bytes: testFrame(60, 3)})
	for _, want := range [][]byte{testFrame(1514, 1), testFrame(60, 3)} {
		if _, got, n := c.next(); !bytes.Equal(got, want) || n != 1 {
			t.Errorf("%d bytes in %d buffers, want %d", len(got), n, len(want))
		}
	}
	if s := c.dev.Stats().Received; s.Frames != 2 || s.Dropped != 1 || s.Bytes != 1574 {
		t.Errorf("stats: %+v", s)
	}
}

// TestSend: what the guest sends arrives with its header, unless the guest was not
// allowed to send it.
func TestSend(t *testing.T) {
	set := func(flags, gso byte, size uint16) (h ethernet.Header) {
		h.Set(flags, gso, 54, size, 34, 16)
		return h
	}
	for i, test := range []struct {
		header  ethernet.Header
		length  int
		without uint64
		ok      bool
	}{
		{set(0, 0, 0), 60, 0, true},
		{set(0, 0, 0), 14, 0, true},
		{set(0, 0, 0), 13, 0, false},
		{set(0, 0, 0), 0, 0, false},
		{set(0, 0, 0), 32000, 0, true},
		{set(NeedsChecksum, 0, 0), 60, 0, true},
		{set(NeedsChecksum, 0, 0), 60, featureChecksum, false},
		{set(ethernet.DataValid, 0, 0), 60, 0, false},
		{set(NeedsChecksum, ethernet.GSOTCPv4, 1448), 9000, 0, true},
		{set(NeedsChecksum, ethernet.GSOTCPv4, 1448), 9000, featureHostTSO4, false},
		{set(NeedsChecksum, ethernet.GSOTCPv4, 0), 9000, 0, false},
		{set(0, ethernet.GSOTCPv4, 1448), 9000, 0, false},
		{set(NeedsChecksum, ethernet.GSOTCPv6, 1448), 9000, 0, true},
		{set(NeedsChecksum, ethernet.GSOTCPv6|ethernet.GSOECN, 1448), 9000, 0, true},
		{set(NeedsChecksum, ethernet.GSOTCPv6|ethernet.GSOECN, 1448), 9000, featureHostECN, false},
		{set(NeedsChecksum, ethernet.GSOECN, 1448), 9000, 0, false},
		{set(NeedsChecksum, 3, 1448), 9000, 0, false},
	} {
		c := newCard(t, test.without, allRings)
		f := testFrame(max(test.length, ethernet.HeaderLen), i)[:test.length]
		q := c.d.Queues[1]
		ticket := q.Submit(virtiotest.Request{Out: append(test.header[:], f...)})
		q.Kick()
		q.Wait(ticket)
		c.wire.mu.Lock()
		sent := c.wire.sent
		c.wire.mu.Unlock()
		s := c.dev.Stats().Transmitted
		switch {
		case test.ok && (len(sent) != 1 || sent[0].header != test.header || !bytes.Equal(sent[0].bytes, f) || s.Frames != 1 || s.Bytes != uint64(len(f))):
			t.Errorf("%d: %d frames arrived, %+v", i, len(sent), s)
		case !test.ok && (len(sent) != 0 || s.Errors != 1):
			t.Errorf("%d: %d frames arrived, %+v", i, len(sent), s)
		}
	}
}

// TestSendLater: a link that cannot take frames now gets them later, in order.
func TestSendLater(t *testing.T) {
	c := newCard(t, 0, allRings)
	c.wire.mu.Lock()
	c.wire.busy = 5
	c.wire.mu.Unlock()
	q := c.d.Queues[1]
	for i := range 10 {
		q.Submit(virtiotest.Request{Out: append(make([]byte, ethernet.HeaderSize), testFrame(60, i)...)})
	}
	q.Kick()
	q.Poll(10)
	for i, f := range c.wire.sent {
		if !bytes.Equal(f.bytes, testFrame(60, i)) {
			t.Errorf("frame %d is another", i)
		}
	}
	if c.wire.again != 5 || len(c.wire.sent) != 10 {
		t.Errorf("%d frames, %d refused", len(c.wire.sent), c.wire.again)
	}
}

// TestDown: without a cable no frame passes, and the driver is told.
func TestDown(t *testing.T) {
	c := newCard(t, 0, allRings)
	status := func() byte {
		var p [1]byte
		c.d.ReadConfig(configStatus, p[:])
		return p[0]
	}
	before := c.d.ConfigSignals().Count()
	c.dev.SetUp(false)
	c.dev.SetUp(false) // no change
	if n := c.d.ConfigSignals().Count() - before; n != 1 || status() != 0 {
		t.Errorf("%d interrupts, status %d", n, status())
	}
	c.room(2, 1526)
	c.wire.put(frame{bytes: testFrame(60, 1)})
	q := c.d.Queues[1]
	ticket := q.Submit(virtiotest.Request{Out: append(make([]byte, ethernet.HeaderSize), testFrame(60, 2)...)})
	q.Kick()
	q.Wait(ticket)
	for end := time.Now().Add(virtiotest.Deadline); c.dev.Stats().Received.Dropped == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s := c.dev.Stats(); s.Received.Dropped != 1 || s.Transmitted.Dropped != 1 || len(c.wire.sent) != 0 {
		t.Errorf("stats: %+v", s)
	}
	c.dev.SetUp(true)
	c.wire.put(frame{bytes: testFrame(60, 3)})
	if _, got, _ := c.next(); status() != statusLinkUp || !bytes.Equal(got, testFrame(60, 3)) {
		t.Error("nothing comes with the cable plugged in again")
	}
}

// command sends the card a command, and returns its ack.
func (c *card) command(b ...byte) (ack byte) {
	c.Helper()
	q := c.d.Queues[2]
	ticket := q.Submit(virtiotest.Request{Out: b, In: 1, Check: func(in []byte, n uint32) error {
		ack = in[0]
		return nil
	}})
	q.Kick()
	q.Wait(ticket)
	return ack
}

// TestFilter: the driver gets the frames that it asked for.
func TestFilter(t *testing.T) {
	var (
		own    = testMAC
		other  = ethernet.MAC{2, 0, 0, 0, 0, 9}
		listed = ethernet.MAC{2, 0, 0, 0, 0, 10}
		group  = ethernet.MAC{1, 0, 0x5e, 0, 0, 1}
		member = ethernet.MAC{0x33, 0x33, 0, 0, 0, 1}
		all    = ethernet.Broadcast
	)
	table := func(lists ...[]ethernet.MAC) []byte {
		b := []byte{classMAC, macTableSet}
		for _, l := range lists {
			b = le.AppendUint32(b, uint32(len(l)))
			for _, m := range l {
				b = append(b, m[:]...)
			}
		}
		return b
	}
	tables := table([]ethernet.MAC{listed}, []ethernet.MAC{member})
	many := make([]ethernet.MAC, maxAddresses+1)
	off := []byte{classRX, rxPromiscuous, 0}
	for i, test := range []struct {
		commands [][]byte
		pass     []ethernet.MAC
	}{
		{nil, []ethernet.MAC{own, other, listed, group, member, all}},
		{[][]byte{off}, []ethernet.MAC{own, all}},
		{[][]byte{off, tables}, []ethernet.MAC{own, listed, member, all}},
		{[][]byte{off, table(many, many)}, []ethernet.MAC{own, other, listed, group, member, all}},
		{[][]byte{off, tables, {classRX, rxAllMulticast, 1}}, []ethernet.MAC{own, listed, group, member, all}},
		{[][]byte{off, {classRX, rxAllUnicast, 1}}, []ethernet.MAC{own, other, listed, all}},
		{[][]byte{off, tables, {classRX, rxNoBroadcast, 1}, {classRX, rxNoMulticast, 1}}, []ethernet.MAC{own, listed}},
		{[][]byte{off, tables, {classRX, rxNoUnicast, 1}}, []ethernet.MAC{member, all}},
		{[][]byte{off, append([]byte{classMAC, macAddressSet}, other[:]...)}, []ethernet.MAC{other, all}},
		{[][]byte{off, {classRX, rxPromiscuous, 1}}, []ethernet.MAC{own, other, listed, group, member, all}},
	} {
		c := newCard(t, 0, allRings)
		for _, b := range test.commands {
			if ack := c.command(b...); ack != ackOK {
				t.Fatalf("%d: % x: ack %d", i, b, ack)
			}
		}
		for _, m := range []ethernet.MAC{own, other, listed, group, member, all} {
			if got, want := c.dev.filter.pass(m), slices.Contains(test.pass, m); got != want {
				t.Errorf("%d: %x passes: %v", i, m, got)
			}
		}
		c.restores(t)
		c.dev.Reset()
		if !c.dev.filter.pass(other) || c.dev.filter.address() != own {
			t.Errorf("%d: the filter outlives a reset", i)
		}
	}
}

// restores checks that a card with the state of c has its filter.
func (c *card) restores(t *testing.T) {
	t.Helper()
	state, err := c.dev.Save()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := New(c.wire, testMAC)
	if err := again.Load(state); err != nil || !reflect.DeepEqual(again.filter.s, c.dev.filter.s) {
		t.Errorf("restored from %s: %+v, %v", state, again.filter.s, err)
	}
}

// TestBadCommands: each is refused and changes nothing.
func TestBadCommands(t *testing.T) {
	c := newCard(t, featureControlMAC, allRings)
	before, _ := c.dev.Save()
	for _, b := range [][]byte{
		{}, {classRX}, {classRX, rxPromiscuous}, {classRX, rxPromiscuous, 0, 0}, {classRX, 6, 0}, {9, 9, 9},
		{classMAC, macTableSet}, {classMAC, macTableSet, 0, 0, 0, 0}, {classMAC, macTableSet, 1, 0, 0, 0, 1, 2, 3, 4, 5},
		{classMAC, macTableSet, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0},
		{classMAC, macAddressSet, 1, 2, 3, 4, 5, 6}, // not negotiated
		{classPairs, pairsSet, 1, 0},                // not offered
		{classGuestOffloads, guestOffloadsSet, 0}, {classGuestOffloads, guestOffloadsSet, 0, 4, 0, 0, 0, 0, 0, 0},
		make([]byte, maxCommand+1),
	} {
		if ack := c.command(b...); ack != ackErr {
			t.Errorf("% x: ack %d", b[:min(len(b), 20)], ack)
		}
	}
	if after, _ := c.dev.Save(); !bytes.Equal(before, after) {
		t.Errorf("the state is %s, was %s", after, before)
	}
}

// TestMode: the link learns what the driver takes: at the start, on each change, and
// after a pause. If the link refuses, the command fails.
func TestMode(t *testing.T) {
	c := newCard(t, featureGuestTSO6, allRings)
	const all = ethernet.Checksum | ethernet.TSO4 | ethernet.ECN
	if c.wire.mode != (ethernet.Mode{Pairs: 1, Offload: all}) {
		t.Errorf("at the start: %+v", c.wire.mode)
	}
	if ack := c.command(classGuestOffloads, guestOffloadsSet, featureGuestChecksum, 0, 0, 0, 0, 0, 0, 0); ack != ackOK || c.wire.mode.Offload != ethernet.Checksum {
		t.Errorf("ack %d: %+v", ack, c.wire.mode)
	}
	c.d.Board.Pause()
	c.wire.mode = ethernet.Mode{}
	c.d.Board.Resume()
	if c.wire.mode.Offload != ethernet.Checksum {
		t.Errorf("after a pause: %+v", c.wire.mode)
	}
	c.wire.mu.Lock()
	c.wire.refuse = errors.New("no")
	c.wire.mu.Unlock()
	if ack := c.command(classGuestOffloads, guestOffloadsSet, 0, 0, 0, 0, 0, 0, 0, 0); ack != ackErr || c.dev.mode.Offload != ethernet.Checksum {
		t.Errorf("ack %d: %+v", ack, c.dev.mode)
	}
}

// TestPairs: a driver that knows several queue pairs says how many it uses. One that
// does not sends its commands in queue 2.
func TestPairs(t *testing.T) {
	w := newWire(ethernet.Info{Pairs: 4, Offload: testOffload})
	for _, without := range []uint64{0, featureMultiQueue} {
		dev, err := New(w, testMAC)
		if err != nil {
			t.Fatal(err)
		}
		b := virtiotest.NewBoard(t, nil)
		d := virtiotest.NewDriver(t, b, b.Add(virtiotest.MMIO, dev), false)
		d.Start(virtiotest.Setup{Features: dev.Features() &^ without})
		queue, want := 8, byte(ackOK)
		if without != 0 {
			queue, want = 2, ackErr
		}
		for _, n := range []byte{3, 0, 5} {
			q := d.Queues[queue]
			ticket := q.Submit(virtiotest.Request{Out: []byte{classPairs, pairsSet, n, 0}, In: 1, Check: func(in []byte, _ uint32) error {
				if ok := n == 3 && want == ackOK; (in[0] == ackOK) != ok {
					return fmt.Errorf("%d pairs: ack %d", n, in[0])
				}
				return nil
			}})
			q.Kick()
			q.Wait(ticket)
		}
		if pairs := map[byte]int{ackOK: 3, ackErr: 1}[want]; w.mode.Pairs != pairs {
			t.Errorf("without %#x: the link uses %d pairs", without, w.mode.Pairs)
		}
		b.Close()
	}
}

// TestLoad: a foreign state is refused.
func TestLoad(t *testing.T) {
	w := newWire(ethernet.Info{Pairs: 2, Offload: ethernet.Checksum})
	for _, s := range []string{
		`{`, `{"Filter":{"MAC":[1,2,3,4,5,"6"]}}`, `{"Mode":{"Pairs":3}}`, `{"Mode":{"Pairs":-1}}`, `{"Mode":{"Offload":2}}`,
	} {
		d, err := New(w, testMAC)
		if err != nil {
			t.Fatal(err)
		}
		if d.Load([]byte(s)) == nil {
			t.Errorf("%s is taken", s)
		}
	}
	long, _ := json.Marshal(saved{Filter: filterState{Unicast: make([]ethernet.MAC, maxAddresses+1)}})
	if d, _ := New(w, testMAC); d.Load(long) == nil {
		t.Error("a filter of any length is taken")
	}
}
