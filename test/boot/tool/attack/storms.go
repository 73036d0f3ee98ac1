package attack

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
)

// stormTests do something very often, scaled to scale per cent.
func stormTests(scale int) []test {
	often := func(n int) int { return max(n*scale/100, 1) }
	tests := each(func(packed bool) (tests []test) {
		for i := range 10 {
			tests = append(tests, test{fmt.Sprintf("%s/%d resets in flight, %d", format(packed), often(50), i), options{packed: packed}, true, func(d *driver) error {
				return d.resetStorm(packed, often(50), i%2 == 1)
			}})
		}
		for i := range 4 {
			tests = append(tests, test{fmt.Sprintf("%s/%d queue resets in flight, %d", format(packed), often(30), i), options{packed: packed, with: featRingReset}, true, func(d *driver) error {
				return d.queueResetStorm(packed, often(30), i%2 == 1)
			}})
		}
		return append(tests,
			test{format(packed) + "/kicks", options{packed: packed}, false, func(d *driver) error { return d.kickStorm(often(100000), d.queue) }},
			test{format(packed) + "/breaks and resets", options{packed: packed}, true, func(d *driver) error { return d.breakStorm(often(500)) }},
			test{format(packed) + "/two CPUs", options{packed: packed}, true, func(d *driver) error {
				return d.race(time.Duration(often(5000)) * time.Millisecond)
			}},
			test{format(packed) + "/descriptors that change", options{packed: packed}, true, func(d *driver) error {
				return d.flicker(packed, time.Duration(often(5000))*time.Millisecond)
			}})
	})
	return append(append(tests, queueResetTests()...),
		test{"kicks of no queue", options{}, false, func(d *driver) error { return d.kickStorm(often(100000), 99) }},
		test{"breaks without a reset", options{}, false, func(d *driver) error {
			d.ring.(*splitRing).setIdx(0x8000)
			return d.kickStorm(often(20000), d.queue)
		}})
}

// kickStorm kicks a queue n times.
func (d *driver) kickStorm(n int, queue uint32) error {
	broken := d.port.status()&needsReset != 0
	for range n {
		d.port.notify(queue)
	}
	if broken || d.ring.used() > 0 || d.port.status()&needsReset != 0 {
		return nil
	}
	return d.good()
}

// burst makes n requests of 1 KiB, or 512 KiB, available and kicks.
func (d *driver) burst(n int, large bool) {
	size := uint32(1024)
	if large {
		size = dataLen / 2
	}
	for range n {
		d.ring.add(d.victim.large(d, size)...)
	}
	d.kick()
}

// resetStorm resets the device with requests in flight, n times. After a reset
// it must leave the memory alone (§2.4.1).
func (d *driver) resetStorm(packed bool, n int, large bool) error {
	for i := range n {
		if err := d.start(options{packed: packed}); err != nil {
			return fmt.Errorf("start %d: %w", i, err)
		}
		d.burst(map[bool]int{false: 16, true: 4}[large], large)
		for range i % 7 { // by then, none or some of them are done
			runtime.Gosched()
		}
		if err := d.reset(); err != nil {
			return fmt.Errorf("reset %d: %w", i, err)
		}
		if i%8 == 0 {
			if err := d.untouched(); err != nil {
				return fmt.Errorf("reset %d: %w", i, err)
			}
		}
	}
	return nil
}

// untouched checks that the device no longer writes to memory.
func (d *driver) untouched() error {
	areas := []region{d.mem.region[:atTable], d.mem.region[atData : atData+4096], d.mem.region[atReceived : atReceived+receiveRoom*receiveLen]}
	for _, a := range areas {
		for i := range a {
			a[i] = 0x5a
		}
	}
	time.Sleep(time.Millisecond)
	for _, a := range areas {
		if bytes.Count(a, []byte{0x5a}) != len(a) {
			return errors.New("the device writes to memory after its reset")
		}
	}
	return nil
}

// queueResetStorm resets the queue with requests in flight, and enables it again, n
// times.
func (d *driver) queueResetStorm(packed bool, n int, large bool) error {
	if err := d.start(options{packed: packed, with: featRingReset}); err != nil {
		return err
	}
	for i := range n {
		d.burst(map[bool]int{false: 16, true: 4}[large], large)
		d.port.resetQueue()
		d.port.resetQueue()
		for end := time.Now().Add(patience); d.port.resetting() || d.port.isEnabled(); {
			if time.Now().After(end) {
				return fmt.Errorf("reset %d of the queue does not end", i)
			}
		}
		d.mem.clear()
		d.enableQueue(options{packed: packed})
	}
	return d.good()
}

// queueResetTests reset the queue when that is not allowed, §2.6.1.
func queueResetTests() []test {
	o := options{with: featRingReset}
	return []test{
		{"queue reset, not negotiated", options{}, false, func(d *driver) error {
			d.port.resetQueue()
			return d.try(want{used | quiet, ""}, d.request()...)
		}},
		{"queue reset, not enabled", o, true, func(d *driver) error {
			if err := errors.Join(d.reset(), d.negotiate(o.features())); err != nil {
				return err
			}
			d.port.selectQueue(d.queue)
			d.port.resetQueue()
			return nil
		}},
		{"queue reset, broken", o, false, func(d *driver) error {
			d.ring.(*splitRing).setIdx(0x8000)
			d.kick()
			err := d.judge(breaks, 1)
			d.port.resetQueue()
			d.enableQueue(o)
			d.kick()
			return err
		}},
		{"reset within a queue reset", o, true, func(d *driver) error {
			for range 30 {
				if err := d.start(o); err != nil {
					return err
				}
				d.burst(4, true)
				d.port.resetQueue()
				d.port.enable(1)
				if err := d.reset(); err != nil {
					return err
				}
			}
			return d.untouched()
		}},
	}
}

// breakStorm breaks the device and resets it, n times: the host's log must not
// overflow.
func (d *driver) breakStorm(n int) error {
	for i := range n {
		if err := d.start(options{}); err != nil {
			return err
		}
		d.ring.(*splitRing).setIdx(0x8000)
		d.kick()
		if err := d.judge(breaks, 1); err != nil {
			return fmt.Errorf("break %d: %w", i, err)
		}
	}
	return nil
}

// beside repeats f on another CPU until stop is called.
func beside(f func()) (stop func()) {
	var end atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for !end.Load() {
			f()
		}
	}()
	return func() { end.Store(true); <-done }
}

// race sets up the device and uses it while another CPU writes all registers that hold
// no address.
func (d *driver) race(long time.Duration) error {
	seed := d.rand.Uint64()
	stop := beside(func() {
		seed = seed*6364136223846793005 + 1442695040888963407
		v := uint32(seed >> 33)
		switch v >> 8 % 8 {
		case 0:
			d.port.setStatus(uint8(v))
		case 1:
			d.port.selectQueue(v & 3)
		case 2:
			d.port.setSize(v & 0x1ff)
		case 3:
			d.port.enable(v & 1)
		case 4:
			d.port.notify(v & 1)
		case 5:
			d.port.resetQueue()
		case 6:
			d.port.choose(featVersion1 | uint64(v&1)<<34)
		case 7:
			d.port.interrupts()
		}
	})
	defer stop()
	for end := time.Now().Add(long); time.Now().Before(end); {
		d.port.setStatus(0)
		d.mem.clear()
		d.negotiate(featVersion1)
		d.enableQueue(options{})
		d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
		d.burst(4, false)
	}
	return nil
}

// flicker changes a descriptor while the device reads it: address and length, and also
// the type in the request's header.
func (d *driver) flicker(packed bool, long time.Duration) error {
	nowhere := d.ramEnd + 1<<20
	at, good := uint64(atDesc+16), d.mem.phys+atData
	stop := beside(func() {
		d.mem.store(at, 8, nowhere)
		d.mem.store(at+8, 4, 1<<32-1)
		d.mem.store(atHeader+16, 4, 0xff)
		d.mem.store(at+8, 4, 512)
		d.mem.store(at, 8, good)
		d.mem.store(atHeader+16, 4, reqIn)
	})
	defer stop()
	for end := time.Now().Add(long); time.Now().Before(end); {
		if err := d.start(options{packed: packed}); err != nil {
			return err
		}
		d.ring.add(d.request()...)
		d.kick()
		if d.wait(1, patience) == quiet {
			return errors.New("a request is lost")
		}
	}
	return nil
}
