package serial

import (
	"testing"
	"time"
)

// FuzzRegisters plays any sequence of accesses and host events on the device,
// without its goroutines.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x13, 0x80, 0x10, 1, 0x11, 0, 0x13, 3})                                // divisor
	f.Add([]byte{0x12, 0x81, 0x14, 0x0b, 0x11, 5, 0x20, 40, 2, 5, 0, 5, 0, 0x21, 0x22}) // receive
	f.Add([]byte{0x14, 0x08, 0x11, 2, 2, 0x10, 'x', 0x10, 'y', 2, 0x23, 0x24})          // print
	f.Add([]byte{0x14, 0x1a, 0x12, 7, 0x10, 'x', 0x13, 0x40, 5, 0, 6, 0x25})            // loopback
	f.Fuzz(func(t *testing.T, ops []byte) {
		d, irq := still(t)
		d.running = true
		next := func() (v byte) {
			if len(ops) > 0 {
				v, ops = ops[0], ops[1:]
			}
			return v
		}
		for len(ops) > 0 {
			op := next()
			p := make([]byte, 1+op>>6)
			switch {
			case op&0x30 == 0x00:
				d.Read(uint64(op&0xf), p)
			case op&0x30 == 0x10:
				for i := range p {
					p[i] = next()
				}
				d.Write(uint64(op&0xf), p)
			default:
				event(t, d, op&0xf, next)
			}
			check(t, d, irq)
		}
	})
}

// still returns a device on which nothing happens by itself: its timer calls nothing.
func still(t *testing.T) (*Device, *pin) {
	irq := newPin(t)
	d := New(irq, nil, discard{})
	d.timer = time.NewTimer(time.Hour)
	return d, irq
}

// FuzzLoad loads any state; one that is accepted must work.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"UART":{"IER":15,"LCR":3,"MCR":11,"FCR":193,"LSR":16,"MSR":176,"Lines":176,"Divisor":1,"RX":[97,4096],"RXLen":2,"Timeout":true},"Input":"YWJj","Break":true,"Ahead":2}`))
	f.Add([]byte(`{"UART":{"RXLen":1,"TxBusy":true,"TxEmpty":true}}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		d, irq := still(t)
		if d.Load(state) != nil {
			return
		}
		d.Resume()
		check(t, d, irq)
		for reg := range uint64(Size) {
			p := []byte{0xff}
			d.Read(reg, p)
			d.Write(reg, p)
			event(t, d, byte(reg), func() byte { return p[0] })
			check(t, d, irq)
		}
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func event(t *testing.T, d *Device, op byte, next func() byte) {
	switch op {
	case 0: // the host sends; supply, as receive does
		if len(d.input) == 0 {
			d.input = make([]byte, next())
		}
		for d.running && len(d.input) > 0 && d.hungry() {
			d.feed()
			d.settle()
		}
	case 1:
		d.timeout()
	case 2:
		d.Break()
	case 3: // much output, as if written
		if n := outputHigh - 4 - len(d.output); n > 0 {
			d.output = append(d.output, make([]byte, n)...)
		}
	case 4:
		d.drain(nil)
	case 5:
		d.Pause()
	case 6:
		d.Resume()
	case 7:
		d.Reset()
	default:
		b, err := d.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Load(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.output) >= outputSize { // the next byte would block
		d.drain(nil)
	}
}

func check(t *testing.T, d *Device, irq *pin) {
	t.Helper()
	if err := d.uart.check(); err != nil {
		t.Fatal(err)
	}
	if len(d.output) > outputSize+outputSlack || len(d.input) > inputSize {
		t.Fatalf("%d bytes of output, %d of input", len(d.output), len(d.input))
	}
	u := d.uart // a copy: reading has effects
	if gate := u.MCR&(mcrOUT2|mcrLoop) == mcrOUT2; irq.high != (gate && u.readIIR()&1 == 0) {
		t.Fatalf("the line is %v, IIR %#x, MCR %#x", irq.high, u.readIIR(), u.MCR)
	}
	u = d.uart
	if dr := u.readLSR()&lsrDR != 0; dr != (u.RXLen > 0) {
		t.Fatal("LSR.DR does not tell of data")
	}
	if u = d.uart; u.readLSR()&lsrTHRE == 0 && d.running && len(d.output) < outputHigh {
		t.Fatal("room for output, but the transmitter is busy")
	}
}
