package usernet

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vmm/ethernet"
)

// script is a guest whose Readable says what a test wants.
type script struct {
	called chan struct{}
	answer chan bool
}

func newScript() *script { return &script{make(chan struct{}, 100), make(chan bool)} }

func (s *script) Readable(int) bool {
	s.called <- struct{}{}
	return <-s.answer
}

func (*script) Writable(int) {}

func (s *script) none(t *testing.T, when string) {
	t.Helper()
	select {
	case <-s.called:
		t.Errorf("Readable %s", when)
	case <-time.After(20 * time.Millisecond):
	}
}

// newTestQueue returns a started queue, its guest, and a function that pushes a
// frame.
func newTestQueue(t *testing.T) (*queue, *script, func() bool) {
	q, s := newQueue(), newScript()
	done := make(chan struct{})
	go func() { q.pump(); close(done) }()
	t.Cleanup(func() {
		q.close()
		wait(t, "the end of pump", done)
	})
	q.start(s)
	return q, s, func() bool {
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, 60))})
		defer pkt.DecRef()
		return q.push(pkt)
	}
}

// take takes a frame, if any.
func (q *queue) take() bool {
	var h ethernet.Header
	n, err := q.receive(&h, [][]byte{make([]byte, 100)}, 0)
	return err == nil && n == 60
}

// The following tests check the contract of ethernet.Link's Readable and Resume.

func TestNoRoom(t *testing.T) {
	_, s, push := newTestQueue(t)
	push()
	wait(t, "Readable", s.called)
	s.answer <- false
	push()
	s.none(t, "without Resume")
}

func TestResume(t *testing.T) {
	q, s, push := newTestQueue(t)
	push()
	wait(t, "Readable", s.called)
	s.answer <- false
	s.none(t, "without Resume")
	q.resume()
	wait(t, "Readable after Resume", s.called)
	if !q.take() || q.take() {
		t.Error("not one frame")
	}
	s.answer <- true
	q.resume() // one too many
	s.none(t, "without a frame")
	push()
	wait(t, "Readable", s.called)
	s.answer <- false
}

func TestResumeEarly(t *testing.T) {
	q, s, push := newTestQueue(t)
	push()
	wait(t, "Readable", s.called)
	q.resume()
	s.answer <- false
	wait(t, "Readable, for Resume is not lost", s.called)
	s.answer <- false
}

// TestResumeAmidst: a limit ends the turn of a guest that takes a packet in segments,
// after the first one. The guest gets the rest when the limit resumes the link.
func TestResumeAmidst(t *testing.T) {
	q, s, _ := newTestQueue(t)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: ethernet.HeaderLen + header.IPv4MinimumSize + header.TCPMinimumSize,
		Payload:            buffer.MakeWithData(make([]byte, 2000)),
	})
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).Encode(&header.TCPFields{DataOffset: header.TCPMinimumSize})
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{TotalLength: 2040})
	pkt.LinkHeader().Push(ethernet.HeaderLen)
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, MSS: 1000, CsumOffset: header.TCPChecksumOffset}
	q.push(pkt)
	pkt.DecRef()
	take := func() bool {
		var h ethernet.Header
		n, err := q.receive(&h, [][]byte{make([]byte, 2000)}, 0)
		return err == nil && n == ethernet.HeaderLen+header.IPv4MinimumSize+header.TCPMinimumSize+1000
	}
	wait(t, "Readable", s.called)
	if !take() {
		t.Fatal("no segment")
	}
	s.answer <- true // from a card that was told to try again later
	wait(t, "Readable, for there is more", s.called)
	s.answer <- false // from the limit
	q.resume()
	wait(t, "Readable after Resume", s.called)
	if !take() || take() {
		t.Error("not one segment")
	}
	s.answer <- true
	s.none(t, "without a frame")
}

func TestStopWaits(t *testing.T) {
	q, s, push := newTestQueue(t)
	push()
	wait(t, "Readable", s.called)
	stopped := make(chan struct{})
	go func() { q.stop(); close(stopped) }()
	eventually(t, "stop", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.guest == nil
	})
	select {
	case <-stopped:
		t.Error("Stop does not wait for Readable")
	default:
	}
	s.answer <- true
	wait(t, "Stop", stopped)
	push()
	s.none(t, "after Stop")
}

// TestStopKeeps: a paused guest misses no frame, and one that starts anew gets none
// meant for its predecessor.
func TestStopKeeps(t *testing.T) {
	q, s, push := newTestQueue(t)
	push()
	wait(t, "Readable", s.called)
	s.answer <- false
	q.stop()
	push()
	s.none(t, "after Stop")
	q.start(s)
	wait(t, "Readable, for frames from before Start", s.called)
	//lint:ignore SA4000 each takes a frame
	if !q.take() || !q.take() || q.take() {
		t.Error("not two frames")
	}
	push()
	s.answer <- true
	wait(t, "Readable", s.called)
	s.answer <- false
	q.stop()
	push()
	q.discard()
	push()
	q.start(s)
	s.none(t, "for a frame from before Discard")
	if q.take() || q.bytes != 0 {
		t.Error("a frame from before Discard")
	}
	push()
	wait(t, "Readable", s.called)
	s.answer <- true
}

func TestQueueFull(t *testing.T) {
	q, s, push := newTestQueue(t)
	for i := range maxFrames {
		if !push() {
			t.Fatalf("frame %d is lost", i)
		}
	}
	if push() {
		t.Error("no bound")
	}
	wait(t, "Readable", s.called)
	for i := range maxFrames {
		if !q.take() {
			t.Fatalf("frame %d is lost", i)
		}
	}
	s.answer <- true
	if q.bytes != 0 || q.take() {
		t.Errorf("%d bytes are left", q.bytes)
	}
}
