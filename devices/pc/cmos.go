package pc

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// CMOSSize is the number of ports: index (0x70) and data (0x71).
const CMOSSize = 2

// Registers of the MC146818, and the PC's century register.
const (
	rtcSeconds = 0x00
	rtcMinutes = 0x02
	rtcHours   = 0x04
	rtcWeekday = 0x06 // 1 is Sunday
	rtcDay     = 0x07
	rtcMonth   = 0x08
	rtcYear    = 0x09
	rtcA       = 0x0a
	rtcB       = 0x0b
	rtcC       = 0x0c
	rtcD       = 0x0d

	// RTCCentury is for the FADT's CENTURY field.
	RTCCentury = 0x32
)

const (
	rtcUIP   = 1 << 7 // A: an update is about to happen
	rtcSET   = 1 << 7 // B: the driver is setting the time
	rtcDM    = 1 << 2 // B: binary, not BCD
	rtc24    = 1 << 1 // B: 24 hours
	rtcVRT   = 1 << 7 // D: RAM and time are valid
	rtcPM    = 1 << 7 // of the hours, in 12-hour mode
	rtcDivA  = 0x26   // A: 32.768 kHz, 1.024 kHz rate
	rtcAhead = 244 * time.Microsecond
)

// CMOS is the real-time clock with its 128 bytes of RAM. It shows the host's time in
// UTC. When a guest sets it, it keeps a constant offset. The alarm and the periodic
// interrupt are registers only: they never interrupt.
type CMOS struct {
	clock func() time.Time

	mu sync.Mutex
	cmosState
}

type cmosState struct {
	Index  byte
	Offset int64 // seconds of the guest's clock ahead of the host's
	RAM    []byte
}

// NewCMOS returns a CMOS that shows the time of clock.
func NewCMOS(clock func() time.Time) *CMOS {
	c := &CMOS{clock: clock, cmosState: cmosState{RAM: make([]byte, 128)}}
	c.RAM[rtcA], c.RAM[rtcB], c.RAM[rtcD] = rtcDivA, rtc24, rtcVRT
	return c
}

// Read implements bus.Device.
func (c *CMOS) Read(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	each(off, p, func(off uint64, b *byte) {
		if off == 1 { // the index is write-only
			*b = c.read(c.Index)
		}
	})
}

// Write implements bus.Device.
func (c *CMOS) Write(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	each(off, p, func(off uint64, b *byte) {
		switch off {
		case 0:
			c.Index = *b & 0x7f // bit 7 masks NMIs, but there are none
		case 1:
			c.write(c.Index, *b)
		}
	})
}

func (c *CMOS) read(i byte) byte {
	switch {
	case isTime(i):
		c.latch()
	case i == rtcA && c.RAM[rtcB]&rtcSET == 0:
		if next := time.Second - time.Duration(c.clock().Nanosecond()); next <= rtcAhead {
			return c.RAM[rtcA] | rtcUIP
		}
	}
	return c.RAM[i]
}

func (c *CMOS) write(i, v byte) {
	switch {
	case isTime(i):
		c.latch()
		c.RAM[i] = v
		if c.RAM[rtcB]&rtcSET == 0 {
			c.set()
		}
	case i == rtcA:
		c.RAM[i] = v &^ rtcUIP
	case i == rtcB:
		c.latch()
		ends := c.RAM[i]&^v&rtcSET != 0
		c.RAM[i] = v
		if ends {
			c.set()
		}
	case i == rtcC || i == rtcD: // read-only
	default:
		c.RAM[i] = v
	}
}

func isTime(i byte) bool {
	switch i {
	case rtcSeconds, rtcMinutes, rtcHours, rtcWeekday, rtcDay, rtcMonth, rtcYear, RTCCentury:
		return true
	}
	return false
}

// latch updates the time registers, unless the driver is setting them.
func (c *CMOS) latch() {
	if c.RAM[rtcB]&rtcSET != 0 {
		return
	}
	t := time.Unix(c.clock().Unix()+c.Offset, 0).UTC()
	hour, pm := t.Hour(), byte(0)
	if c.RAM[rtcB]&rtc24 == 0 {
		if hour >= 12 {
			pm = rtcPM
		}
		hour = (hour+11)%12 + 1
	}
	c.RAM[rtcSeconds] = c.encode(t.Second())
	c.RAM[rtcMinutes] = c.encode(t.Minute())
	c.RAM[rtcHours] = c.encode(hour) | pm
	c.RAM[rtcWeekday] = c.encode(int(t.Weekday()) + 1)
	c.RAM[rtcDay] = c.encode(t.Day())
	c.RAM[rtcMonth] = c.encode(int(t.Month()))
	c.RAM[rtcYear] = c.encode(t.Year() % 100)
	c.RAM[RTCCentury] = c.encode(t.Year() / 100 % 100)
}

// set sets the clock to the time registers. The weekday follows from the date. Values
// out of range carry, so that all values give some time.
func (c *CMOS) set() {
	hour := c.RAM[rtcHours]
	h := c.decode(hour)
	if c.RAM[rtcB]&rtc24 == 0 {
		h = c.decode(hour&^rtcPM) % 12
		if hour&rtcPM != 0 {
			h += 12
		}
	}
	year := c.decode(c.RAM[RTCCentury])*100 + c.decode(c.RAM[rtcYear])
	t := time.Date(year, time.Month(c.decode(c.RAM[rtcMonth])), c.decode(c.RAM[rtcDay]),
		h, c.decode(c.RAM[rtcMinutes]), c.decode(c.RAM[rtcSeconds]), 0, time.UTC)
	c.Offset = t.Unix() - c.clock().Unix()
}

func (c *CMOS) encode(v int) byte {
	if c.RAM[rtcB]&rtcDM != 0 {
		return byte(v)
	}
	return byte(v/10<<4 | v%10)
}

func (c *CMOS) decode(b byte) int {
	if c.RAM[rtcB]&rtcDM != 0 {
		return int(b)
	}
	return int(b>>4)*10 + int(b&0xf)
}

// Save returns the state.
func (c *CMOS) Save() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.Marshal(c.cmosState)
}

// Load sets the state.
func (c *CMOS) Load(b []byte) error {
	var s cmosState
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("cmos: state: %w", err)
	}
	if len(s.RAM) != 128 || s.Index >= 128 {
		return fmt.Errorf("cmos: state has %d bytes of RAM, index %#x", len(s.RAM), s.Index)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmosState = s
	return nil
}
