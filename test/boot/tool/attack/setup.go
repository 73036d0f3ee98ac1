package attack

import (
	"errors"
	"fmt"
)

// otherQueue returns another location for a queue.
func (d *driver) otherQueue() rings {
	return rings{d.mem.phys + atOther, d.mem.phys + atOther + atDriver, d.mem.phys + atOther + atDevice}
}

// setupTests set up queues in the wrong way or order.
func setupTests() []test {
	return each(func(packed bool) []test {
		tests := append(sizeTests(packed), selectTests(packed)...)
		return append(append(tests, changeTests(packed)...), orderTests(packed)...)
	})
}

// changeTests change a live device.
func changeTests(packed bool) (tests []test) {
	o := options{packed: packed}
	live := func(name string, f func(d *driver) error) {
		tests = append(tests, test{format(packed) + "/" + name, o, false, f})
	}
	live("enabled twice", func(d *driver) error { d.port.enable(1); d.port.enable(1); return d.good() })
	live("enabled with garbage", func(d *driver) error {
		for _, v := range []uint32{2, 0xfffe, 0x8000} { // on PCI not 1; on MMIO bit 0 is 0, which disables
			d.port.enable(v)
		}
		return d.try(want{used | quiet, ""}, d.request()...)
	})
	live("rings moved while enabled", func(d *driver) error {
		d.port.setRings(d.otherQueue())
		return d.good()
	})
	live("rings moved to nowhere while enabled", func(d *driver) error {
		d.port.setRings(rings{1 << 63, 1 << 52, 0xfee00000})
		return d.good()
	})
	live("size changed while enabled", func(d *driver) error {
		for _, n := range []uint32{1, 2, 128, 0, 0xffff} {
			d.port.setSize(n)
		}
		return d.good()
	})
	live("rings moved with requests in flight", func(d *driver) error {
		for range 8 {
			d.ring.add(d.request()...)
		}
		d.kick()
		d.port.setRings(d.otherQueue())
		d.port.enable(1)
		return d.judge(succeeds, 8)
	})
	live("features changed while live", func(d *driver) error {
		d.port.choose(o.features() ^ featPacked)
		d.port.setStatus(acknowledge | driverIs | featuresOK)
		return d.good()
	})
	live("FAILED while live", func(d *driver) error {
		d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK | failed)
		return d.try(want{used | quiet, ""}, d.request()...)
	})
	return tests
}

// orderTests do the steps of §3.1.1 in another order.
func orderTests(packed bool) (tests []test) {
	o := options{packed: packed}
	bare := func(name string, f func(d *driver) error) {
		tests = append(tests, test{format(packed) + "/" + name, o, true, f})
	}
	bare("DRIVER_OK without a queue", func(d *driver) error { return d.lateQueue(o, false) })
	bare("a queue after DRIVER_OK", func(d *driver) error { return d.lateQueue(o, true) })
	bare("a queue before FEATURES_OK", func(d *driver) error { return d.earlyQueue(o) })
	bare("a queue nowhere said", func(d *driver) error {
		err := errors.Join(d.reset(), d.negotiate(o.features()))
		d.port.selectQueue(d.queue)
		d.port.enable(1)
		d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
		d.kick()
		return err
	})
	bare("kicks before DRIVER_OK", func(d *driver) error {
		if err := d.prepare(o); err != nil {
			return err
		}
		for range 10 {
			d.kick()
		}
		d.ring.add(d.request()...)
		d.kick()
		if err := d.judge(ignored, 1); err != nil {
			return err
		}
		d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
		return d.judge(succeeds, 1)
	})
	return tests
}

// lateQueue sets DRIVER_OK before it sets up a queue.
func (d *driver) lateQueue(o options, enable bool) error {
	if err := errors.Join(d.reset(), d.negotiate(o.features())); err != nil {
		return err
	}
	d.mem.clear()
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	for range 10 {
		d.kick()
	}
	if !enable {
		return nil
	}
	d.enableQueue(o)
	return d.try(want{used | quiet, ""}, d.request()...)
}

// earlyQueue sets up a queue before it negotiates features.
func (d *driver) earlyQueue(o options) error {
	if err := d.reset(); err != nil {
		return err
	}
	d.mem.clear()
	d.enableQueue(o)
	d.kick()
	err := d.negotiate(o.features())
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	return errors.Join(err, d.try(want{used | broken | quiet, ""}, d.request()...))
}

// sizeTests use invalid or unusual queue sizes.
func sizeTests(packed bool) (tests []test) {
	for _, n := range []uint32{0, 1, 2, 3, 5, 100, 255, 256, 257, 0x7fff, 0x8000, 0xffff, 0x10000, 0x10001, 1 << 31, 1<<32 - 1} {
		tests = append(tests, test{fmt.Sprintf("%s/size %#x", format(packed), n), options{packed: packed}, true, func(d *driver) error {
			if err := d.reset(); err != nil {
				return err
			}
			d.mem.clear()
			if err := d.negotiate(options{packed: packed}.features()); err != nil {
				return err
			}
			d.port.selectQueue(d.queue)
			size := d.port.queueMax()
			d.port.setSize(n)
			d.port.setRings(d.fresh)
			d.port.enable(1)
			if n > 0 && n <= size {
				size = n
			}
			d.ring = d.newRing(packed, atDesc, atDriver, atDevice, uint16(size))
			d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
			w := want{used | broken | quiet, ""}
			if size >= 4 && (packed || size&(size-1) == 0) && n <= 256 {
				w = succeeds
			}
			return d.try(w, d.request()...)
		}})
	}
	return tests
}

// selectTests select queues that do not exist, and then write all queue registers.
func selectTests(packed bool) (tests []test) {
	for _, q := range []uint32{1, 2, 255, 256, 0x7fff, 0x8000, 0xffff, 0x10000, 1 << 31, 1<<32 - 1} {
		tests = append(tests, test{fmt.Sprintf("%s/queue %#x", format(packed), q), options{packed: packed}, false, func(d *driver) error {
			d.port.selectQueue(q)
			if _, pci := d.port.(*pciPort); pci {
				q &= 0xffff
			}
			_, all := d.victim.queues()
			if q >= all {
				if d.port.queueMax() != 0 {
					return fmt.Errorf("it has a size of %d", d.port.queueMax())
				}
				d.port.setSize(64)
				d.port.setRings(d.otherQueue())
				d.port.enable(1)
				d.port.resetQueue()
				if d.port.isEnabled() || d.port.resetting() {
					return errors.New("it is enabled, or resetting")
				}
			}
			d.port.notify(q)
			return d.good()
		}})
	}
	return tests
}
