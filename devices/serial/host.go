package serial

import (
	"fmt"
	"time"
)

const (
	// inputSize bounds what is read ahead of the guest.
	inputSize = 4 << 10
	// outputSize bounds what the guest has printed ahead of the host; one more byte
	// blocks the vCPU. Twice as much exists while the host takes the rest.
	outputSize = 32 << 10
	// outputHigh is where the transmitter reports busy. A driver that waits for it
	// then stops. A driver that gave up polling (Linux's printk, after 10 ms), or
	// that has just filled what it takes for a FIFO, still has space.
	outputHigh = outputSize - 2<<10
	// outputSlack is what a guest may print beyond outputSize while the device is
	// paused or not started, when it cannot block. The rest is lost: a guest must not
	// fill the host's memory.
	outputSlack = 32 << 10

	// gather is how long output waits for more output before it is written.
	gather = time.Millisecond
	// rxTimeout is the receiver's timeout when the driver has left data in the FIFO:
	// about four characters at 38,400 baud.
	rxTimeout = time.Millisecond
)

// print takes a byte from the guest. mu is held.
func (d *Device) print(v byte) {
	if d.out == nil || d.err != nil || d.closed {
		return
	}
	for len(d.output) >= outputSize && d.running {
		d.room.Wait()
	}
	if d.closed || d.err != nil || len(d.output) == outputSize+outputSlack {
		return
	}
	d.output = append(d.output, v)
	switch len(d.output) {
	case 1:
		wake(d.kick)
	case outputSize / 2:
		wake(d.half)
	}
	if len(d.output) >= outputHigh {
		d.uart.setTxBusy(true)
	}
}

// wake signals a channel of capacity 1.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// transmit writes the guest's output to the host, on its own goroutine. It gathers
// for a moment, so that not every byte causes a wake-up and a system call.
func (d *Device) transmit() {
	defer close(d.sent)
	timer := time.NewTimer(gather)
	spare := make([]byte, 0, outputSize)
	for open := true; open; {
		select {
		case <-d.kick:
			timer.Reset(gather)
			select {
			case <-timer.C:
			case <-d.half:
			case <-d.done:
			}
		case <-d.done:
			open = false
		}
		spare = d.drain(spare)
	}
}

// drain writes all output. It replaces output with spare and returns the old buffer.
func (d *Device) drain(spare []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.output
	d.output, d.unsent = spare[:0], len(p)
	d.relieve()
	if len(p) > 0 {
		err := d.write(p)
		if err != nil && d.err == nil {
			// A terminal that has gone away must not stop the guest: from here on,
			// output is dropped.
			d.err = fmt.Errorf("serial: %w", err)
			d.output = d.output[:0]
			d.relieve()
		}
	}
	d.unsent = 0
	return p
}

// write gives p to the host. It releases the caller's lock meanwhile.
func (d *Device) write(p []byte) error {
	d.mu.Unlock()
	defer d.mu.Lock() // also for a panic on its way to the caller's unlock
	_, err := d.out.Write(p)
	return err
}

// relieve signals that output has room. mu is held.
func (d *Device) relieve() {
	if d.running {
		d.uart.setTxBusy(false)
		d.settle()
	}
	d.room.Broadcast()
}

// receive reads the host's bytes, on its own goroutine. It reads no more before the
// guest has taken what was read: this is the back-pressure.
//
// A byte enters the receiver's FIFO only while the guest asserts RTS. So input piped
// in before the guest's driver opens the port is not lost when the driver clears the
// FIFOs while opening (Linux raises RTS last). A guest with hardware flow control
// (stty crtscts) can stop the host.
//
// This goroutine also fills the FIFO only when it is empty. A FIFO refilled while the
// driver reads it would keep the driver in its interrupt handler (Linux: "too much
// work for irq") for as long as the host has input.
func (d *Device) receive() {
	buf := make([]byte, inputSize)
	for d.supply() && d.in != nil {
		n, err := d.in.Read(buf)
		d.mu.Lock()
		if !d.closed {
			d.input = buf[:n]
		}
		d.mu.Unlock()
		if err != nil { // usually EOF: the guest continues without input
			d.supply()
			return
		}
	}
}

// supply returns true once the guest has taken all input, or false once closed.
func (d *Device) supply() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && len(d.input) > 0 {
		if !d.running || !d.hungry() {
			d.fed.Wait()
			continue
		}
		d.feed()
		d.settle()
	}
	return !d.closed
}

// hungry reports whether the receiver is empty and can take the next input, if there
// is any. A break needs no RTS.
func (d *Device) hungry() bool {
	switch {
	case d.uart.RXLen > 0 || d.uart.loop():
		return false
	case d.brk && d.ahead == 0:
		return true
	}
	return len(d.input) > 0 && d.uart.ready()
}

// feed fills the empty FIFO, up to and including a break. If that is less than the
// trigger level, it is all there is, so there is no need to wait for the receiver's
// timeout.
func (d *Device) feed() {
	n := min(len(d.input), d.uart.depth())
	if d.brk {
		n = min(n, d.ahead)
		d.ahead -= n
	}
	for _, v := range d.input[:n] {
		d.uart.receive(uint16(v))
	}
	d.input = d.input[n:]
	if d.brk && d.ahead == 0 && n < d.uart.depth() {
		d.brk = false
		d.uart.receive(lsrBI << 8)
	}
	d.uart.idle()
}

// timeout is the receiver's timeout for data that the driver has not read.
func (d *Device) timeout() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	if d.running {
		d.uart.idle()
		d.settle()
	}
}
