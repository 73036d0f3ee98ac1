package virtio

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/eventfd"
	"vmm/logline"
	"vmm/mem"
	"vmm/task"
)

// Config is what a transport needs besides the device.
type Config struct {
	Mem *mem.Memory
	// Doorbells makes the guest's notifications signal an eventfd without an exit. If
	// nil, they arrive as exits.
	Doorbells Doorbells
	Log       *slog.Logger // nil discards
	Owner     task.Owner   // of the goroutines that serve and stop queues
	// Broken, if not nil, is closed once one of the machine's goroutines has
	// panicked. The chains it held are never given back, so from then on a stop waits
	// for goroutines but not for chains.
	Broken <-chan struct{}
}

// Doorbells makes guest writes signal eventfds (KVM's ioeventfd). Only the machine
// knows how.
type Doorbells interface {
	// Assign makes the write b signal e. Deassign undoes it.
	Assign(e *eventfd.FD, b Bell) error
	Deassign(e *eventfd.FD, b Bell) error
}

// A Bell is a write by which a guest notifies a device: Len bytes with exactly this
// Value or, if Len is 0, any write to the address.
type Bell struct {
	Addr  uint64
	Port  bool // Addr is a port
	Len   int
	Value uint32
}

// configChange, instead of a queue number, stands for the configuration.
const configChange = -1

// core is what the transports share: the device status, the features, the queue
// registers, and the goroutines that serve the queues.
//
//	      DRIVER_OK, Resume
//	idle ------------------> serving
//	     <------------------
//	      reset, Pause
//
// A reset takes as long as the host needs to complete the requests under way.
// Meanwhile status shows its old value (§2.1.2), no lock is held, and writes are
// dropped.
type core struct {
	dev   Device
	cfg   Config
	kicks []*eventfd.FD // one per queue
	count []counters    // one per queue

	// notify interrupts the driver for a queue's used buffers, or for configChange.
	// It may be called on any goroutine and does not block.
	notify func(queue int)
	// cleared tells the transport that a queue was reset or, with configChange, the
	// whole device. It is called with mu held.
	cleared func(queue int)

	broken     atomic.Bool // the driver broke a queue, §2.1.2: DEVICE_NEEDS_RESET
	generation atomic.Uint32
	told       atomic.Bool   // the driver was told of a change since the last reset
	failures   *logline.Line // rate-limited: a guest that keeps breaking and resetting a device must not fill the log

	// ops is held while the device or one of its queues is stopped, however long that
	// takes. A vCPU thread never waits for it. It is taken before mu.
	ops sync.Mutex

	mu       sync.Mutex
	regs     Registers     // guarded by mu
	runs     []*run        // guarded by mu; one per queue, nil where not serving
	alive    bool          // guarded by mu; Start was called and Stop was not
	stopping bool          // guarded by mu; stop is under way, no queue starts
	reset    chan struct{} // guarded by mu; not nil while a reset is under way
	held     bool          // guarded by mu; set from Pause to Resume: nothing starts
	barred   bool          // guarded by mu; queues leave guest memory alone

	// released is closed while no vCPU may wait for the device. Guarded by mu.
	released chan struct{}
}

// Registers is all the state that exists between two accesses. Its zero value with
// the queue sizes is the reset device; its JSON is the snapshot.
type Registers struct {
	Status         uint8
	FeatureSel     uint32 `json:",omitempty"` // device_feature_select
	DriverSel      uint32 `json:",omitempty"` // driver_feature_select
	DriverFeatures uint64 `json:",omitempty"`
	BadFeatures    bool   `json:",omitempty"` // the driver chose a bit above 63
	QueueSel       uint32 `json:",omitempty"`
	Queues         []QueueRegisters
}

// QueueRegisters is the part of one queue.
type QueueRegisters struct {
	virtq.Layout
	Enabled   bool
	Resetting bool `json:"-"` // queue_reset: its reset is under way
	State     virtq.State
	Owed      []virtq.Owed `json:",omitempty"`
	Started   bool         // State and Owed are valid
}

// run is a queue that is being served.
type run struct {
	queue *virtq.Queue
	done  chan struct{} // closed by the goroutine that serves it
}

// newCore returns the core of a reset device.
func newCore(dev Device, cfg Config) (*core, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &core{dev: dev, cfg: cfg, failures: logline.New(cfg.Log, logPause), released: make(chan struct{}), cleared: func(int) {}}
	for range dev.QueueSizes() {
		kick, err := eventfd.New()
		if err != nil {
			c.closeKicks()
			return nil, fmt.Errorf("virtio: %w", err)
		}
		c.kicks = append(c.kicks, kick)
	}
	c.runs, c.count = make([]*run, len(c.kicks)), make([]counters, len(c.kicks))
	c.clear()
	return c, nil
}

func (c *core) closeKicks() error {
	var errs []error
	for _, kick := range c.kicks {
		errs = append(errs, kick.Close())
	}
	return errors.Join(errs...)
}

// clear sets the registers to those of a reset device. The caller holds mu, or is the
// only user of c.
func (c *core) clear() {
	c.regs = Registers{}
	for i := range c.kicks {
		c.regs.Queues = append(c.regs.Queues, c.freshQueue(i))
	}
	c.broken.Store(false)
	c.told.Store(false)
	if d, ok := c.dev.(Resetter); ok {
		d.Reset()
	}
	c.cleared(configChange)
}

func (c *core) freshQueue(i int) QueueRegisters {
	return QueueRegisters{Layout: virtq.Layout{Size: c.dev.QueueSizes()[i]}}
}

// offered returns the features that the driver may choose from.
func (c *core) offered() uint64 {
	return c.dev.Features() | FeatureVersion1 | FeatureIndirectDesc | FeatureEventIdx | FeatureRingPacked | FeatureRingReset
}

// frozen reports whether the registers must not change. The caller holds mu.
func (c *core) frozen() bool { return c.reset != nil }

// selected returns the registers of the queue that queue_select names, or nil if
// there is no such queue. The caller holds mu.
func (c *core) selected() *QueueRegisters {
	if c.regs.QueueSel >= uint32(len(c.regs.Queues)) {
		return nil
	}
	return &c.regs.Queues[c.regs.QueueSel]
}

// writable is selected for a write. It also returns nil for an enabled queue: its
// rings must not move while they are in use. The caller holds mu.
func (c *core) writable() *QueueRegisters {
	if q := c.selected(); q != nil && !q.Enabled && !q.Resetting && !c.frozen() {
		return q
	}
	return nil
}

// window returns the 32 bits of all that a feature selector chooses.
func window(all uint64, sel uint32) uint32 {
	if sel > 1 {
		return 0
	}
	return uint32(all >> (32 * sel))
}

// setDriverFeatures stores the 32 bits that driver_feature_select chooses.
func (c *core) setDriverFeatures(v uint32) {
	if c.frozen() || c.regs.Status&StatusFeaturesOK != 0 {
		return
	}
	if c.regs.DriverSel > 1 {
		c.regs.BadFeatures = c.regs.BadFeatures || v != 0
		return
	}
	shift := 32 * c.regs.DriverSel
	c.regs.DriverFeatures = c.regs.DriverFeatures&^(0xffffffff<<shift) | uint64(v)<<shift
}

// status is what the driver reads.
func (c *core) status() uint8 {
	if c.broken.Load() {
		return c.regs.Status | StatusNeedsReset
	}
	return c.regs.Status
}

// setStatus handles the driver's write of the status, §3.1. If it starts a reset that
// is not over on return, it returns a channel that is closed when the reset ends. The
// caller holds mu.
func (c *core) setStatus(v uint8) <-chan struct{} {
	if c.frozen() {
		return c.reset
	}
	if v == 0 {
		return c.startReset()
	}
	was := c.regs.Status
	// The driver must not clear bits (§2.1.1), and only we set NEEDS_RESET.
	set := v &^ was &^ StatusNeedsReset
	if set&StatusFeaturesOK != 0 && !c.acceptable(&c.regs) {
		set &^= StatusFeaturesOK
	}
	if (was|set)&StatusFeaturesOK == 0 {
		set &^= StatusDriverOK // §3.1.1: not before step 6
	}
	c.regs.Status |= set
	if set&StatusDriverOK != 0 {
		c.start()
	}
	return nil
}

// acceptable reports whether the driver's choice of features is valid, §2.2.2, §6.2.
func (c *core) acceptable(r *Registers) bool {
	f := r.DriverFeatures
	return f&^c.offered() == 0 && f&FeatureVersion1 != 0 && !r.BadFeatures
}

// setSize handles the driver's write of a queue size. 0 and sizes that are too large
// change nothing. Whether the size suits the ring format is checked when the queue
// starts.
func (c *core) setSize(q *QueueRegisters, size uint32) {
	if size != 0 && size <= uint32(c.dev.QueueSizes()[c.regs.QueueSel]) {
		q.Size = uint16(size)
	}
}

// kick handles the driver's notification of a queue when no doorbell takes it.
func (c *core) kick(queue uint32) {
	if queue < uint32(len(c.kicks)) {
		c.kicks[queue].Signal()
	}
}

func (c *core) format() virtq.Format {
	has := func(bit uint64) bool { return c.regs.DriverFeatures&bit != 0 }
	return virtq.Format{Packed: has(FeatureRingPacked), Indirect: has(FeatureIndirectDesc), EventIdx: has(FeatureEventIdx)}
}

// start starts the device and serves every enabled queue from where it stopped. The
// caller holds mu.
func (c *core) start() {
	if c.alive || c.held || c.stopping {
		return
	}
	c.proceed()
	c.alive = true // even if Start fails: Stop is its counterpart
	if err := c.dev.Start(c.regs.DriverFeatures, host{c}); err != nil {
		c.fail("start", err)
		return
	}
	for i := range c.regs.Queues {
		c.startQueue(i)
	}
}

// host is what the device sees of c.
type host struct{ *core }

func (h host) Wake(queue int) { h.kicks[queue].Signal() }

func (h host) ConfigChanged() {
	h.generation.Add(1)
	h.told.Store(true)
	h.notify(configChange)
}

// startQueue serves one queue, if it is enabled and the device is alive. The
// caller holds mu.
func (c *core) startQueue(i int) {
	r := &c.regs.Queues[i]
	if !c.alive || c.stopping || !r.Enabled || c.runs[i] != nil || c.broken.Load() {
		return
	}
	format := c.format()
	if !r.Started {
		r.State, r.Owed, r.Started = format.Fresh(), nil, true
	}
	q, err := virtq.New(c.cfg.Mem, r.Layout, format, r.State, func() { c.notify(i) })
	if err != nil {
		c.fail(fmt.Sprintf("queue %d", i), err)
		return
	}
	q.CountIn(&c.count[i].Counters)
	q.Longest(int(c.dev.QueueSizes()[i]))
	if err := q.Owe(r.Owed); err != nil {
		c.fail(fmt.Sprintf("queue %d", i), err)
		return
	}
	if !c.barred {
		q.Release()
	}
	n := &run{q, make(chan struct{})}
	c.runs[i] = n
	c.kicks[i].Start() // signals, for what came before
	c.cfg.Owner.Go(func() { c.serve(i, n) })
}

// bar makes the queues leave guest memory alone, or continue where they were. It
// never waits, so a vCPU may call it at any time and rate. The device is not told:
// its queues seem empty, and requests that wait for the host keep waiting.
func (c *core) bar(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barred == on {
		return
	}
	c.barred = on
	for i, n := range c.runs {
		switch {
		case n == nil:
		case on:
			n.queue.Hold()
		default:
			n.queue.Release()
			c.kicks[i].Signal() // for what came meanwhile
		}
	}
}

// serve is the goroutine of one queue.
func (c *core) serve(i int, n *run) {
	defer close(n.done)
	for c.kicks[i].Wait() == nil {
		c.count[i].wakes.Add(1)
		c.dev.Serve(i, n.queue)
		if err := n.queue.Err(); err != nil {
			c.fail(fmt.Sprintf("queue %d", i), err)
			return
		}
	}
}

// fail tells the driver, once, that the device needs a reset.
func (c *core) fail(what string, err error) {
	if !c.broken.CompareAndSwap(false, true) {
		return
	}
	c.notify(configChange)
	c.failures.Warn("virtio: the guest's driver broke a device, which waits for its reset", "device", c.dev.ID(), "at", what, "err", err)
}

const logPause = 10 * time.Second
