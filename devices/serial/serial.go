// Package serial is a PC's serial port: a National Semiconductor PC16550D (a
// "16550A") between the guest's bus and a host reader and writer.
//
// uart.go is the chip; this file adds a lock, a bus and an interrupt line; host.go
// moves the bytes. docs/serial.md follows one byte all the way.
package serial

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"vmm/bus"
	"vmm/task"
)

// Size is the number of ports that the device uses.
const Size = 8

// Device is one serial port. It implements bus.Device.
//
//	New -> [Load] -> Start <-> Pause -> Save
//	                   |         |
//	                   +--> Close <
type Device struct {
	Owner task.Owner // of its goroutines; set before Start

	irq bus.Line
	in  io.Reader // nil: no input
	out io.Writer // nil: the guest's output is dropped

	kick chan struct{} // there is output
	half chan struct{} // there is much output, so do not gather more
	done chan struct{} // closed by Close
	sent chan struct{} // closed when the goroutine that writes to out ends

	mu      sync.Mutex
	uart    uart        // guarded by mu, as all below
	level   bool        // of irq
	running bool        // between Start or Resume and Pause or Close
	started bool        // Start was called
	closed  bool        // Close was called
	input   []byte      // from the host, not yet in the receiver's FIFO
	brk     bool        // a break is due
	ahead   int         // bytes of input that come before it
	fed     *sync.Cond  // wakes receive: room in the FIFO, RTS, running, closed
	output  []byte      // from the guest, not yet taken by transmit
	unsent  int         // bytes that transmit is writing to out
	room    *sync.Cond  // wakes writers of a full output
	err     error       // the first error of out; since then output is dropped
	timer   *time.Timer // nil before Start
	armed   bool        // the timer will call timeout
}

// New returns a port whose interrupt is irq, which is called with the device's lock
// held. The guest reads from in and prints to out. Either may be nil; if both are,
// nothing is plugged in (no carrier). The caller owns in and out, and closes them
// after the device.
func New(irq bus.Line, in io.Reader, out io.Writer) *Device {
	d := &Device{
		irq: irq, in: in, out: out,
		kick: make(chan struct{}, 1),
		half: make(chan struct{}, 1),
		done: make(chan struct{}),
		sent: make(chan struct{}),

		output: make([]byte, 0, outputSize),
	}
	d.fed = sync.NewCond(&d.mu)
	d.room = sync.NewCond(&d.mu)
	d.uart.Lines = d.carrier()
	d.uart.reset()
	return d
}

func (d *Device) carrier() byte {
	if d.in == nil && d.out == nil {
		return 0
	}
	return msrDCD | msrDSR | msrCTS
}

// Read implements bus.Device. A wide access is split into bytes at ascending
// ports, as the ISA bus does.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		if reg := off + uint64(i); reg < Size {
			p[i] = d.uart.read(int(reg))
		}
	}
	d.settle()
}

// Write implements bus.Device. It blocks while the output is full and the device is
// neither paused nor closed.
func (d *Device) Write(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, v := range p {
		if reg := off + uint64(i); reg < Size && d.uart.write(int(reg), v) {
			d.print(v)
		}
	}
	d.settle()
}

// settle applies the consequences of a register change. mu is held.
func (d *Device) settle() {
	if d.running && d.hungry() {
		if len(d.input) > 0 {
			d.fed.Signal()
		} else {
			d.feed() // a break alone; receive may be in Read
		}
	}
	if d.running && d.uart.waiting() && !d.armed {
		d.armed = true
		d.timer.Reset(rxTimeout)
	}
	if level := d.uart.line(); level != d.level {
		d.level = level
		d.irq.Set(level)
	}
}

// Break puts the line from the host into the break state once, at its place among the
// bytes that in returns. Linux takes the next byte as a SysRq key. A second break
// before the guest has seen the first does nothing.
func (d *Device) Break() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return // its interrupt may be gone
	}
	if !d.brk {
		d.brk, d.ahead = true, len(d.input)
	}
	d.settle()
}

// Reset is the master reset, as on a system reset. Bytes that the guest has not seen
// yet stay until it runs again.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uart.reset()
	d.settle()
}

// Start starts moving bytes. It is called once.
func (d *Device) Start() {
	d.mu.Lock()
	d.started = true
	d.timer = d.Owner.AfterFunc(time.Hour, d.timeout)
	d.timer.Stop()
	d.mu.Unlock()
	if d.out != nil {
		d.Owner.Go(d.transmit)
	} else {
		close(d.sent)
	}
	d.Owner.Go(d.receive)
	d.Resume()
}

// Pause freezes the registers against the host: nothing comes in, and no interrupt
// rises except by a guest access. It never waits, and it frees a vCPU that waits in
// Write. What the guest has printed is still written.
func (d *Device) Pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
	d.room.Broadcast()
}

// Resume undoes Pause.
func (d *Device) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.running = true
	d.uart.setTxBusy(len(d.output) >= outputHigh)
	d.settle()
}

// Close writes what the guest has printed to the host, waiting for a slow host until
// ctx is done, and ends the device: later output is dropped. It returns the first
// error of out, or says how much output was lost because the host did not read.
//
// A blocked Read of in cannot be interrupted from here. Its goroutine ends, without
// touching the device, once the caller closes in or a byte comes.
func (d *Device) Close(ctx context.Context) error {
	d.mu.Lock()
	first := !d.closed
	d.running, d.closed = false, true
	started := d.started
	d.room.Broadcast()
	d.fed.Broadcast()
	if started {
		d.timer.Stop()
	}
	d.mu.Unlock()
	if first {
		close(d.done)
	}
	if started {
		select {
		case <-d.sent:
		case <-ctx.Done():
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.unsent + len(d.output); d.err == nil && n > 0 {
		return fmt.Errorf("serial: the host did not read the last %d bytes of the guest's output", n)
	}
	return d.err
}

type state struct {
	UART  uart
	Input []byte // taken from the host, not yet seen by the guest
	Break bool
	Ahead int // bytes of Input that come before the break
}

// Save returns the state of a paused device. Output that still waits for the host is
// not part of it: it was printed once, and this process delivers it.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(state{d.uart, d.input, d.brk, d.ahead})
}

// Load sets the state of a device that was not yet started. Start then sets the
// interrupt line.
func (d *Device) Load(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("serial: state: %w", err)
	}
	if err := s.UART.check(); err != nil {
		return err
	}
	if len(s.Input) > inputSize {
		return fmt.Errorf("serial: state has %d bytes of input, more than %d", len(s.Input), inputSize)
	}
	if s.Ahead < 0 || s.Ahead > len(s.Input) {
		return fmt.Errorf("serial: state has a break behind %d of %d bytes", s.Ahead, len(s.Input))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uart, d.input, d.brk, d.ahead = s.UART, s.Input, s.Break, s.Ahead
	d.uart.modem(d.carrier())
	return nil
}
