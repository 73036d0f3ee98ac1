package machine

import (
	"fmt"
	"time"

	"vmm/devices/virtio/balloon"
)

// addBalloon makes the balloon, unless the Config wants none.
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

// validateBalloon is what Validate knows of the balloon.
func (c *Config) validateBalloon() error {
	switch {
	case c.Balloon == 0:
		return nil
	case c.NoBalloon:
		return &ConfigError{"Balloon", fmt.Sprintf("%d bytes, and no balloon to have them", c.Balloon)}
	}
	return checkBalloon(c.Balloon, c.Memory)
}

// checkBalloon refuses a balloon that is larger than the guest.
func checkBalloon(size, memory uint64) error {
	if size > memory {
		return &ConfigError{"Balloon", fmt.Sprintf("%d MiB; the guest has %d MiB in all", size>>20, memory>>20)}
	}
	return nil
}

// errNoBalloon is for a machine whose Config has NoBalloon.
var errNoBalloon = &ConfigError{"Balloon", "the machine was made without one"}

// SetBalloon asks the guest to leave so many bytes of its memory to the host: 0
// gives it all back. The guest does so in its own time, as far as it can, and
// takes back what it needs before it would run out of memory. BalloonStats tells
// how far it is.
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

// BalloonStats returns how large the balloon is, and what the guest said last of
// its memory.
func (m *Machine) BalloonStats() (balloon.Stats, error) {
	if m.devices.balloon == nil {
		return balloon.Stats{}, errNoBalloon
	}
	return m.devices.balloon.Stats(), nil
}

// PollBalloon has the guest asked for its statistics so often; with 0, as at the
// start, there are only those that it gives when its driver starts.
func (m *Machine) PollBalloon(interval time.Duration) error {
	if m.devices.balloon == nil {
		return errNoBalloon
	}
	m.devices.balloon.PollStats(interval)
	return nil
}
