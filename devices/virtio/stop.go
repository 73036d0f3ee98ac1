package virtio

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// stopQueue stops a queue's goroutine and waits for its requests. The caller holds
// ops and not mu.
func (c *core) stopQueue(i int, n *run) {
	n.queue.Stop()
	c.kicks[i].Stop()
	<-n.done
	select {
	case <-n.queue.Drained():
	case <-c.cfg.Broken:
	}
}

// stop is the counterpart of start. It also completes a reset of the device or of
// queues that the driver began, so that none is under way in what is saved
// afterwards. The caller holds ops and not mu.
func (c *core) stop() {
	c.mu.Lock()
	alive, runs := c.alive, append([]*run(nil), c.runs...)
	c.stopping = true
	c.mu.Unlock()
	c.interrupt()
	c.stopQueues(runs)
	if alive {
		c.dev.Stop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range runs {
		if n != nil {
			c.runs[i] = nil
			select {
			case <-n.queue.Drained():
				c.regs.Queues[i].State, c.regs.Queues[i].Owed = n.queue.State(), n.queue.Owed()
			default: // after a panic: nothing continues from here
			}
		}
		if c.regs.Queues[i].Resetting {
			c.clearQueue(i)
		}
	}
	c.alive, c.stopping = false, false
	if c.reset != nil {
		c.clear()
		close(c.reset)
		c.reset = nil
	}
}

// interrupt makes a device end long requests soon.
func (c *core) interrupt() {
	if d, ok := c.dev.(Interrupter); ok {
		d.Interrupt()
	}
}

// proceed undoes interrupt.
func (c *core) proceed() {
	if d, ok := c.dev.(Interrupter); ok {
		d.Continue()
	}
}

// stopQueues is stopQueue for all queues.
func (c *core) stopQueues(runs []*run) {
	for _, n := range runs {
		if n != nil {
			n.queue.Stop() // stop all before waiting for the first
		}
	}
	for i, n := range runs {
		if n != nil {
			c.stopQueue(i, n)
		}
	}
}

// startReset resets the device, at once if there is nothing to wait for. The caller
// holds mu.
func (c *core) startReset() <-chan struct{} {
	if !c.alive {
		c.clear()
		return nil
	}
	done := make(chan struct{})
	c.reset = done
	c.cfg.Owner.Go(func() {
		c.ops.Lock()
		defer c.ops.Unlock()
		c.mu.Lock()
		pending := c.reset == done // else Pause came first, and ended the reset
		c.mu.Unlock()
		if pending {
			c.stop()
		}
	})
	return done
}

// resetQueue handles a driver's write of queue_reset (§2.6.1), for the selected
// queue. The caller holds mu, and may wait for the channel, if any.
func (c *core) resetQueue() <-chan struct{} {
	if c.regs.DriverFeatures&FeatureRingReset == 0 {
		return nil
	}
	return c.disableQueue()
}

// disableQueue resets the selected queue, whatever was negotiated. The caller
// holds mu.
func (c *core) disableQueue() <-chan struct{} {
	q := c.selected()
	if q == nil || !q.Enabled || q.Resetting || c.frozen() {
		return nil
	}
	i := int(c.regs.QueueSel)
	if c.runs[i] == nil {
		c.clearQueue(i)
		return nil
	}
	q.Resetting = true
	done := make(chan struct{})
	c.cfg.Owner.Go(func() {
		defer close(done)
		c.ops.Lock()
		defer c.ops.Unlock()
		c.mu.Lock()
		n, pending := c.runs[i], c.regs.Queues[i].Resetting
		c.mu.Unlock()
		if !pending {
			return // Pause or a reset came first: the queue may be in use again
		}
		c.stopQueue(i, n)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.runs[i] = nil
		c.clearQueue(i)
	})
	return done
}

// How long a vCPU waits at a register for what its write began. PCI drivers poll, so
// this only saves them a retry. MMIO drivers do not, and what they write while a
// reset is under way is dropped.
const (
	mmioPatience = 20 * time.Second
	pciPatience  = time.Millisecond
)

// wait waits until done is closed, limit has passed, or the machine wants its vCPUs
// back. A nil done returns at once. The caller holds no lock.
func (c *core) wait(done <-chan struct{}, limit time.Duration) {
	if done == nil {
		return
	}
	c.mu.Lock()
	released := c.released
	c.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-released:
	case <-timer.C:
	}
}

// Release makes sure that no vCPU waits in the device, until Resume.
func (c *core) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.released:
	default:
		close(c.released)
	}
}

func (c *core) clearQueue(i int) {
	c.regs.Queues[i] = c.freshQueue(i)
	c.cleared(i)
}

// enableQueue handles a driver's write of 1 to queue_enable or QueueReady, for the
// selected queue. A driver disables a queue only by a reset. The caller holds mu.
func (c *core) enableQueue() {
	if q := c.writable(); q != nil {
		q.Enabled = true
		c.startQueue(int(c.regs.QueueSel))
	}
}

// A TimeoutError means that the host does not complete a device's requests.
type TimeoutError struct {
	Device ID
	After  time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("virtio device %d: the host has not completed its requests after %v", e.Device, e.After)
}

// Pause stops the device between two requests, or returns a *TimeoutError if that
// takes longer than limit. Resume must follow in that case, too. The caller makes
// sure that no vCPU runs, and has called Release.
func (c *core) Pause(limit time.Duration) error {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
	c.interrupt() // at once: a queue may be stopping
	done := make(chan struct{})
	c.cfg.Owner.Go(func() {
		defer close(done)
		c.ops.Lock()
		defer c.ops.Unlock()
		c.mu.Lock()
		held := c.held // else Resume came first
		c.mu.Unlock()
		if held {
			c.stop()
		}
	})
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		return &TimeoutError{c.dev.ID(), limit}
	}
}

// Resume undoes Pause. After a failed Pause the device starts once the host has
// completed the requests under way.
func (c *core) Resume() {
	c.mu.Lock()
	c.held, c.released = false, make(chan struct{})
	c.mu.Unlock()
	if c.ops.TryLock() {
		c.resume()
		return
	}
	c.cfg.Owner.Go(func() {
		c.ops.Lock()
		c.resume()
	})
}

// resume is Resume once no stop is under way. The caller holds ops; resume releases
// it.
func (c *core) resume() {
	defer c.ops.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held || c.frozen() || c.regs.Status&StatusDriverOK == 0 {
		return
	}
	if c.alive {
		c.proceed() // a failed Pause has not stopped it
	}
	c.start()
	// The saved state may have lost an interrupt, and an extra one does no harm.
	for i, n := range c.runs {
		if n != nil {
			c.notify(i)
		}
	}
	if c.broken.Load() || c.told.Load() {
		c.notify(configChange)
	}
}

// Close stops the device, as Pause does, and frees what it holds. A device that does
// not stop within limit is left alone.
func (c *core) Close(limit time.Duration) error {
	if err := c.Pause(limit); err != nil {
		return err
	}
	return c.closeKicks()
}

// snapshot is the state of a device and its transport.
type snapshot struct {
	Registers Registers
	Broken    bool `json:",omitempty"`
	// The driver compares two values of Generation, which may come from two
	// processes.
	Generation uint32          `json:",omitempty"`
	Told       bool            `json:",omitempty"`
	Device     json.RawMessage `json:",omitempty"` // of a Saver
}

// save returns the state of a paused device.
func (c *core) save() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := snapshot{Registers: c.regs, Broken: c.broken.Load(), Generation: c.generation.Load(), Told: c.told.Load()}
	if d, ok := c.dev.(Saver); ok {
		var err error
		if s.Device, err = d.Save(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(s)
}

// load sets the state of a device that was never started; Resume starts it. The bytes
// are untrusted. What virtq.New checks is not checked here.
func (c *core) load(b []byte) error {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("virtio: %w", err)
	}
	r := &s.Registers
	if len(r.Queues) != len(c.kicks) {
		return fmt.Errorf("virtio: the state is of a device with %d queues, not %d", len(r.Queues), len(c.kicks))
	}
	for i, size := range c.dev.QueueSizes() {
		if r.Queues[i].Size > size {
			return fmt.Errorf("virtio: the state has a queue of %d, more than %d", r.Queues[i].Size, size)
		}
	}
	if r.Status&(StatusFeaturesOK|StatusDriverOK) != 0 && !c.acceptable(r) {
		return errors.New("virtio: the state has features that the device does not offer")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.regs, c.held = s.Registers, true
	c.broken.Store(s.Broken)
	c.generation.Store(s.Generation)
	c.told.Store(s.Told)
	if d, ok := c.dev.(Saver); ok {
		return d.Load(s.Device)
	}
	return nil
}
