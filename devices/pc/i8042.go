package pc

import (
	"encoding/json"
	"fmt"
	"sync"

	"vmm/bus"
)

// I8042Size spans ports 0x60 (data) to 0x64 (command and status).
const I8042Size = 5

const (
	i8042Data    = 0
	i8042Command = 4

	i8042OBF     = 1 << 0 // status: output buffer full
	i8042SYS     = 1 << 2 // status and configuration: the self-test passed
	i8042CMD     = 1 << 3 // status: the last write was a command
	i8042Unlock  = 1 << 4 // status: the keyboard is not locked
	i8042Timeout = 1 << 6 // status: the keyboard did not answer

	i8042KeyInterrupt = 1 << 0 // configuration: an interrupt for each byte to read
	i8042KeyOff       = 1 << 4 // configuration: the keyboard's clock is disabled

	i8042CTR = 0x74 // configuration at reset: both devices off, translation
	i8042P2  = 0x03 // output port: A20 on, no reset
)

// I8042 is a keyboard controller without a keyboard. It exists for guests that reset
// the machine through it (Linux's reboot=k), and it answers enough that a probe ends
// at once and finds no device. It also wakes a sleeping guest: of all this machine's
// interrupts, Linux leaves only a keyboard's enabled when it suspends to idle.
type I8042 struct {
	irq   bus.Line // edge-triggered
	reset func()

	mu sync.Mutex
	i8042State
}

type i8042State struct {
	Config byte
	Status byte
	Data   byte // the output buffer
	Next   byte // the command that the next data byte is the operand of, or 0
}

// NewI8042 returns a controller that calls reset for a pulse on the processor's
// reset line.
func NewI8042(irq bus.Line, reset func()) *I8042 {
	return &I8042{irq: irq, reset: reset, i8042State: i8042State{Config: i8042CTR, Status: i8042Unlock | i8042SYS}}
}

// Wake interrupts a guest that has enabled keyboard interrupts. The guest reads 0x00,
// with which a keyboard reports a lost key. A byte that is already there stays.
func (c *I8042) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.Config&i8042KeyInterrupt == 0 || c.Config&i8042KeyOff != 0:
	case c.Status&i8042OBF != 0:
		c.interrupt()
	default:
		c.answer(0, 0)
	}
}

// Read implements bus.Device.
func (c *I8042) Read(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	each(off, p, func(off uint64, b *byte) {
		switch off {
		case i8042Data:
			*b = c.Data
			c.Status &^= i8042OBF | i8042Timeout
		case i8042Command:
			*b = c.Status
		}
	})
}

// Write implements bus.Device.
func (c *I8042) Write(off uint64, p []byte) {
	reset := false
	c.mu.Lock()
	each(off, p, func(off uint64, b *byte) {
		switch off {
		case i8042Data:
			c.Status &^= i8042CMD
			reset = c.operand(*b) || reset
		case i8042Command:
			c.Status |= i8042CMD
			reset = c.command(*b) || reset
		}
	})
	c.mu.Unlock()
	if reset {
		c.reset()
	}
}

func (c *I8042) command(v byte) (reset bool) {
	c.Next = 0
	switch {
	case v == 0x20: // read the configuration
		c.answer(c.Config, 0)
	case v == 0x60, v >= 0xd1 && v <= 0xd4: // operand follows
		c.Next = v
	case v == 0xa7: // auxiliary device off
		c.Config |= 0x20
	case v == 0xa8: // auxiliary device on
		c.Config &^= 0x20
	case v == 0xa9, v == 0xab: // test of a device's lines: stuck
		c.answer(0x01, 0)
	case v == 0xaa: // self-test: passed
		c.Status |= i8042SYS
		c.answer(0x55, 0)
	case v == 0xad: // keyboard off
		c.Config |= 0x10
	case v == 0xae: // keyboard on
		c.Config &^= 0x10
	case v == 0xc0: // read the input port
		c.answer(0x80, 0)
	case v == 0xd0: // read the output port
		c.answer(i8042P2, 0)
	case v >= 0xf0: // pulse the low bits of the output port that are 0
		return v&1 == 0
	}
	return false
}

func (c *I8042) operand(v byte) (reset bool) {
	next := c.Next
	c.Next = 0
	switch next {
	case 0x60:
		c.Config = v
		c.Status = c.Status&^i8042SYS | v&i8042SYS
	case 0xd1: // the output port: bit 0 is the reset line, low is active
		return v&1 == 0
	case 0xd2, 0xd3: // echo, as from the keyboard even if for the auxiliary device
		c.answer(v, 0)
	default: // for an absent device
		c.answer(0xfe, i8042Timeout)
	}
	return false
}

func (c *I8042) answer(v, status byte) {
	c.Data = v
	c.Status = c.Status&^i8042Timeout | i8042OBF | status
	if c.Config&i8042KeyInterrupt != 0 {
		c.interrupt()
	}
}

func (c *I8042) interrupt() {
	c.irq.Set(true)
	c.irq.Set(false)
}

// Reset resets the controller, as a machine reset does.
func (c *I8042) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.i8042State = NewI8042(nil, nil).i8042State
}

// Save returns the state.
func (c *I8042) Save() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.Marshal(c.i8042State)
}

// Load sets the state.
func (c *I8042) Load(b []byte) error {
	var s i8042State
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("i8042: state: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.i8042State = s
	return nil
}
