package machine

import (
	"fmt"
	"time"

	"vmm/devices/virtio/balloon"
)

// addBalloon creates the balloon device unless the Config disables it.
func (m *Machine) addBalloon() error {
	if m.config.NoBalloon {
		return nil
	}
	d := balloon.New(m.mem, m.log)
	d.Owner = m.panicked
	d.SetTarget(m.config.Balloon)
	m.devices.balloon = d
	return m.addVirtio(m.newPart("balloon"), d, classOther)
}

// validateBalloon checks the balloon for Validate.
func (c *Config) validateBalloon() error {
	switch {
	case c.Balloon == 0:
		return nil
	case c.NoBalloon:
		return &ConfigError{"Balloon", fmt.Sprintf("%d bytes, and no balloon to have them", c.Balloon)}
	}
	return checkBalloon(c.Balloon, c.Memory)
}

// checkBalloon rejects a balloon larger than the guest.
func checkBalloon(size, memory uint64) error {
	if size > memory {
		return &ConfigError{"Balloon", fmt.Sprintf("%d MiB; the guest has %d MiB in all", size>>20, memory>>20)}
	}
	return nil
}

// errNoBalloon is for a machine whose Config has NoBalloon.
var errNoBalloon = &ConfigError{"Balloon", "the machine was made without one"}

// SetBalloon asks the guest to give this many bytes of its memory to the host; 0
// returns all of it to the guest. The guest does so in its own time, as far as it can,
// and takes back what it needs before it would run out of memory. BalloonStats reports
// the progress.
func (m *Machine) SetBalloon(bytes uint64) error {
	if m.devices.balloon == nil {
		return errNoBalloon
	}
	if err := checkBalloon(bytes, m.config.Memory); err != nil {
		return err
	}
	m.devices.balloon.SetTarget(bytes)
	return nil
}

// BalloonStats returns the size of the balloon and the guest's latest memory
// statistics.
func (m *Machine) BalloonStats() (balloon.Stats, error) {
	if m.devices.balloon == nil {
		return balloon.Stats{}, errNoBalloon
	}
	return m.devices.balloon.Stats(), nil
}

// PollBalloon asks the guest for its statistics every interval. With 0, the initial
// setting, the guest sends them only when its driver starts.
func (m *Machine) PollBalloon(interval time.Duration) error {
	if m.devices.balloon == nil {
		return errNoBalloon
	}
	m.devices.balloon.PollStats(interval)
	return nil
}
