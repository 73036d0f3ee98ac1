package attack

import "fmt"

// featureTests choose one bit each, offered or not, §2.2.
func featureTests() (tests []test) {
	for bit := range 64 {
		tests = append(tests, test{fmt.Sprintf("bit %d", bit), options{}, true, func(d *driver) error {
			if err := d.reset(); err != nil {
				return err
			}
			offered := d.port.offered()&(1<<bit) != 0
			d.port.setStatus(acknowledge | driverIs)
			d.port.choose(featVersion1 | 1<<bit)
			d.port.setStatus(acknowledge | driverIs | featuresOK)
			if ok := d.port.status()&featuresOK != 0; ok != offered {
				return fmt.Errorf("offered: %v; accepted: %v", offered, ok)
			}
			if offered || bit == 34 {
				return nil
			}
			// As if it had been accepted.
			d.mem.clear()
			d.opt, d.count = options{}, 0
			d.enableQueue(options{})
			d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
			return d.try(ignored, d.request()...)
		}})
	}
	for _, f := range []uint64{0, 1 << 28, 1<<32 - 1, 1<<64 - 1, 1<<64 - 1<<32, featPacked, featVersion1 | 1<<63} {
		tests = append(tests, test{fmt.Sprintf("features %#x", f), options{}, true, func(d *driver) error {
			if err := d.reset(); err != nil {
				return err
			}
			if d.negotiate(f) == nil {
				return fmt.Errorf("they are accepted")
			}
			return nil
		}})
	}
	return tests
}

// statusTests write every value, from several states, and random values.
func statusTests() (tests []test) {
	for high := range 16 {
		for _, state := range []string{"reset", "live"} {
			tests = append(tests, test{fmt.Sprintf("%s, then %#x0 to %#xf", state, high, high), options{}, true, func(d *driver) error {
				for low := range 16 {
					if err := d.statusValue(state, uint8(high<<4|low)); err != nil {
						return err
					}
				}
				return nil
			}})
		}
	}
	for i := range 20 {
		tests = append(tests, test{fmt.Sprintf("at random %d", i), options{packed: i%2 == 1}, false, func(d *driver) error {
			for range 100 {
				d.port.setStatus(uint8(d.rand.Uint32()))
				if d.rand.IntN(8) == 0 {
					d.port.choose(d.rand.Uint64())
				}
			}
			return nil
		}})
	}
	return tests
}

// statusValue writes one value, to a device that was just reset, or to one that was
// live and got the previous values. The driver can clear bits only with a reset, and
// NEEDS_RESET belongs to the device.
func (d *driver) statusValue(state string, v uint8) (err error) {
	switch {
	case state == "reset":
		err = d.reset()
	case v&15 == 0:
		err = d.start(options{})
	}
	if err != nil || v == 0 {
		return err
	}
	was := d.port.status()
	d.port.setStatus(v)
	switch got := d.port.status(); {
	case got&needsReset != 0:
		return fmt.Errorf("%#x makes the device need a reset", v)
	case got&was != was:
		return fmt.Errorf("%#x clears bits: from %#x to %#x", v, was, got)
	case got&^(was|v) != 0:
		return fmt.Errorf("%#x sets other bits: from %#x to %#x", v, was, got)
	}
	return nil
}
