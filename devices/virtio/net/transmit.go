package net

import (
	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
)

// transmitter moves the frames of one queue to the link, §5.1.6.2.
type transmitter struct {
	d       *Device
	pair    int
	allowed ethernet.Offload // what the driver may leave to the link
	header  ethernet.Header
	sent    []virtq.Used // for serve, to be given back
	pace    pace
	counters
}

func (t *transmitter) start(features uint64) { t.allowed = offload(hostOffloads, features) }

// serve sends until there is nothing left, or the link cannot take more: then
// the frame stays where it was, and the link's Writable brings us here again.
// Frames are given back in batches, for the driver is in no hurry to have them.
func (t *transmitter) serve(q *virtq.Queue) {
	sent, before := t.sent[:0], t.bytes.Load()
	for c := q.Pop(); c != nil; c = q.Pop() {
		if t.send(c) == ethernet.ErrAgain {
			q.Unpop(c)
			break
		}
		if sent = append(sent, virtq.Used{Chain: c}); len(sent) == cap(sent) {
			q.PushAll(sent)
			sent = sent[:0]
		}
	}
	q.PushAll(sent)
	t.pace.moved(q, t.bytes.Load()-before)
}

// sentBatch is how many frames are given back at once at most: a quarter of the
// queue, so that the driver can go on.
const sentBatch = queueSize / 4

// send sends the frame in a chain. Only ethernet.ErrAgain is an error for the caller.
func (t *transmitter) send(c *virtq.Chain) error {
	h := &t.header
	if !c.ReadFull(h[:]) {
		t.errors.Add(1)
		return nil
	}
	n := c.ReadableLen()
	needs, ok := h.Needs()
	if !ok || needs&^t.allowed != 0 || n < ethernet.HeaderLen || n > ethernet.MaxFrame {
		t.errors.Add(1)
		return nil
	}
	if !t.d.up.Load() {
		t.dropped.Add(1)
		return nil
	}
	switch err := t.d.link.Send(t.pair, h, c.Readable); err {
	case nil:
		t.count(int(n))
	case ethernet.ErrAgain:
		return err
	default:
		t.errors.Add(1)
	}
	return nil
}
