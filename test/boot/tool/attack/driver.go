package attack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// driver drives the victim, well or badly.
type driver struct {
	port   port
	mem    *memory
	rand   *rand.Rand
	ramEnd uint64 // the first address after RAM
	victim victim
	queue  uint32 // the victim's queue that is abused
	fresh  rings  // where the queue is, unless options say otherwise
	by     *bystander

	nowhere []place // cache of places

	ring  ring    // of the queue
	opt   options // last passed to prepare
	count int     // of requests, so that each has its own header and status
	goods int     // number of calls of good
}

// options is how a device is set up.
type options struct {
	packed bool
	size   uint32 // of the ring; 0 means 64
	with   uint64 // features besides VERSION_1 and RING_PACKED
	at     rings  // areas not in the usual place; 0 means the usual one
}

func (o options) features() uint64 {
	f := o.with | featVersion1
	if o.packed {
		f |= featPacked
	}
	return f
}

// A ring is the driver's side of a queue that works as it should.
type ring interface {
	add(bufs ...buf) // makes a chain available
	used() int       // how many chains came back
}

// buf is one descriptor.
type buf struct {
	addr  uint64
	n     uint32
	flags uint16
}

// Flags of descriptors, §2.7.5 and §2.8.
const (
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2
	descAvail    = 1 << 7
	descUsed     = 1 << 15
)

// patience is how long the device may take for anything. A few cases may have no
// effect; glance is how long to wait for one of those.
const (
	patience = 10 * time.Second
	glance   = 10 * time.Millisecond
)

// reset resets the device and waits until that is done.
func (d *driver) reset() error {
	d.port.setStatus(0)
	for end := time.Now().Add(patience); d.port.status() != 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			return fmt.Errorf("after %v status is %#x, not reset", patience, d.port.status())
		}
	}
	return nil
}

// negotiate takes a device from reset to FEATURES_OK.
func (d *driver) negotiate(features uint64) error {
	d.port.setStatus(acknowledge | driverIs)
	d.port.choose(features)
	d.port.setStatus(acknowledge | driverIs | featuresOK)
	if d.port.status()&featuresOK == 0 {
		return fmt.Errorf("features %#x are refused", features)
	}
	return nil
}

// prepare resets the device and sets up the queue, up to DRIVER_OK.
func (d *driver) prepare(o options) error {
	if err := d.reset(); err != nil {
		return err
	}
	d.mem.clear()
	d.opt, d.count = o, 0
	if err := d.negotiate(o.features()); err != nil {
		return err
	}
	d.enableQueue(o)
	return nil
}

func (d *driver) enableQueue(o options) {
	n := o.size
	if n == 0 {
		n = 64
	}
	at := d.fresh
	for _, a := range []struct{ to, from *uint64 }{{&at.desc, &o.at.desc}, {&at.driver, &o.at.driver}, {&at.device, &o.at.device}} {
		if *a.from != 0 {
			*a.to = *a.from
		}
	}
	d.port.selectQueue(d.queue)
	d.port.setSize(n)
	d.port.setRings(at)
	d.port.enable(1)
	d.ring = d.newRing(o.packed, atDesc, atDriver, atDevice, uint16(n))
}

func (d *driver) newRing(packed bool, desc, drv, dev uint64, size uint16) ring {
	if packed {
		return newPackedRing(d.mem.region, desc, drv, dev, size)
	}
	return newSplitRing(d.mem.region, desc, drv, dev, size)
}

// start takes the device from reset to DRIVER_OK, with its queues.
func (d *driver) start(o options) error {
	if err := d.prepare(o); err != nil {
		return err
	}
	d.victim.enable(d)
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	return nil
}

func (d *driver) kick() { d.port.notify(d.queue) }

// request returns a good request, in three buffers.
func (d *driver) request() []buf { return d.victim.request(d) }

// good makes a request with a known answer.
func (d *driver) good() error { return d.victim.good(d) }

// outcome is the outcome of a request, or a set of allowed ones.
type outcome uint8

const (
	used   outcome = 1 << iota // it came back
	broken                     // DEVICE_NEEDS_RESET
	quiet                      // neither
)

func (o outcome) String() string {
	var words []string
	for i, w := range []string{"used", "broken", "quiet"} {
		if o>>i&1 != 0 {
			words = append(words, w)
		}
	}
	return strings.Join(words, " or ")
}

// wait waits until n chains are used.
func (d *driver) wait(n int, limit time.Duration) outcome {
	end := time.Now().Add(limit)
	for i := 1; ; i++ {
		if d.ring.used() >= n {
			return used
		}
		if i%64 != 0 {
			continue
		}
		if d.port.status()&needsReset != 0 {
			return broken
		}
		if time.Now().After(end) {
			return quiet
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// want is what a device may do with a request: the outcomes and, if it comes back, the
// status bytes.
type want struct {
	may    outcome
	status string
}

const untouched = 0xee // instead of a status

var (
	succeeds    = want{used, "\x00"}
	fails       = want{used, "\x01"}
	unsupported = want{used, "\x02"}
	refused     = want{used | broken, "\x01\x02\xee"}
	breaks      = want{broken, ""}
	handled     = want{used | broken, "\x00\x01\x02\xee"}
	anything    = want{used | broken | quiet, ""}
	ignored     = want{quiet, ""}
)

// judge waits for n chains and checks the outcome.
func (d *driver) judge(w want, n int) error {
	limit := patience
	if w.may&quiet != 0 {
		limit = glance
	}
	got := d.wait(n, limit)
	if got&w.may == 0 {
		return fmt.Errorf("it is %v, not %v", got, w.may)
	}
	if got == used && w.status != "" && d.victim.hasStatus() {
		if s := d.lastStatus(); strings.IndexByte(w.status, s) < 0 {
			return fmt.Errorf("status %#x, not one of % x", s, w.status)
		}
	}
	return nil
}

// try makes a chain available, and judges the outcome.
func (d *driver) try(w want, bufs ...buf) error {
	d.ring.add(bufs...)
	d.kick()
	return d.judge(w, 1)
}

// sound checks that the device still works after a case.
func (d *driver) sound(packed bool) error {
	if err := d.start(options{packed: packed}); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	if err := d.good(); err != nil {
		return fmt.Errorf("a good request afterwards: %w", err)
	}
	if !d.mem.intact() {
		copy(d.mem.region[atCanary:], d.mem.canary)
		return errors.New("memory was written that no descriptor names")
	}
	return nil
}
