package serial

import (
	"encoding/json"
	"reflect"
	"testing"
)

// step is one access: a write, or a read that must return v.
type step struct {
	write bool
	reg   int
	v     byte
}

func w(reg int, v byte) step { return step{true, reg, v} }
func r(reg int, v byte) step { return step{false, reg, v} }

// in is a byte, or an error, that arrives on the line.
func in(v uint16) step { return step{reg: -1, v: byte(v), write: v>>8 != 0} }

func run(t *testing.T, u *uart, steps []step) {
	t.Helper()
	for i, s := range steps {
		switch {
		case s.reg < 0 && s.write:
			u.receive(lsrBI << 8)
		case s.reg < 0:
			u.receive(uint16(s.v))
		case s.write:
			u.write(s.reg, s.v)
		default:
			if v := u.read(s.reg); v != s.v {
				t.Errorf("step %d: register %d reads %#02x, want %#02x", i, s.reg, v, s.v)
			}
		}
	}
}

func attached() *uart {
	u := &uart{Lines: msrDCD | msrDSR | msrCTS}
	u.reset()
	return u
}

func TestRegisters(t *testing.T) {
	const brk = lsrBI << 8
	for name, steps := range map[string][]step{
		"reset":     {r(regIER, 0), r(regIIR, 1), r(regLCR, 0), r(regMCR, 0), r(regLSR, 0x60), r(regMSR, 0xb0), r(regSCR, 0)},
		"scratch":   {w(regSCR, 0xa5), r(regSCR, 0xa5), w(regSCR, 0x5a), r(regSCR, 0x5a)},
		"masks":     {w(regIER, 0xff), r(regIER, 0x0f), w(regMCR, 0xff), r(regMCR, 0x1f), w(regLCR, 0xff), r(regLCR, 0xff)},
		"read-only": {w(regLSR, 0xff), r(regLSR, 0x60), w(regMSR, 0), r(regMSR, 0xb0)},
		"divisor": {
			w(regLCR, 0x83), r(0, 1), r(1, 0), w(0, 0x34), w(1, 0x12), r(0, 0x34), r(1, 0x12),
			w(regLCR, 0x03), r(regIER, 0), w(regLCR, 0x83), r(1, 0x12),
		},
		"receive":              {in('a'), r(regLSR, 0x61), r(regRBR, 'a'), r(regLSR, 0x60), r(regRBR, 'a')},
		"overrun without FIFO": {in('a'), in('b'), r(regLSR, 0x63), r(regLSR, 0x61), r(regRBR, 'b'), r(regLSR, 0x60)},
		"FIFO on clears":       {in('a'), w(regFCR, 1), r(regLSR, 0x60), in('b'), w(regFCR, 0), r(regLSR, 0x60)},
		"FIFO clear":           {w(regFCR, 1), in('a'), w(regFCR, 1), r(regLSR, 0x61), w(regFCR, 3), r(regLSR, 0x60)},
		"FIFO on":              {w(regFCR, 0xc1), r(regIIR, 0xc1), w(regFCR, 0xc0), r(regIIR, 0x01)},
		"break":                {w(regIER, ierRLSI), in(brk), r(regIIR, 6), r(regLSR, 0x71), r(regIIR, 1), r(regRBR, 0), r(regLSR, 0x60)},
		"break in a FIFO": {
			w(regFCR, 1), in('a'), in(brk), in('b'), r(regLSR, 0xe1), r(regRBR, 'a'), r(regLSR, 0xf1),
			r(regLSR, 0x61), r(regRBR, 0), r(regLSR, 0x61), r(regRBR, 'b'), r(regLSR, 0x60),
		},
		"break read unseen": {w(regFCR, 1), in(brk), in('b'), r(regRBR, 0), r(regLSR, 0x71), r(regLSR, 0x61), r(regRBR, 'b')},
		"THRE interrupt": {
			w(regIER, ierTHRI), r(regIIR, 2), r(regIIR, 1), // reported once
			w(regTHR, 'a'), r(regIIR, 2), r(regIIR, 1), // empty again
			w(regIER, 0), w(regIER, ierTHRI), r(regIIR, 2), // Linux tests this
			w(regIER, ierTHRI|ierRDI), r(regIIR, 1), // it was on already
		},
		"priority": {
			w(regIER, 0x0f), w(regMCR, mcrLoop), w(regTHR, 'a'), w(regTHR, 'b'),
			r(regIIR, 6), r(regLSR, 0x63), r(regIIR, 4), r(regRBR, 'b'),
			r(regIIR, 2), r(regIIR, 0), r(regMSR, 0x0b), r(regIIR, 1),
		},
		"trigger 4": {
			w(regFCR, 0x41), w(regIER, ierRDI), in('a'), in('b'), in('c'), r(regIIR, 0xc1),
			in('d'), r(regIIR, 0xc4), r(regRBR, 'a'), r(regIIR, 0xc1),
		},
		"loopback lines": {
			w(regMCR, mcrLoop|0x0a), r(regMSR, 0x9a&^0x0a|0x02), r(regMSR, 0x90), // DSR fell
			w(regMCR, mcrLoop|0x04), r(regMSR, 0x49), // CTS, DCD fell; RI rose
			w(regMCR, mcrLoop), r(regMSR, 0x04), // RI fell: TERI
			w(regMCR, 0x00), r(regMSR, 0xbb), r(regMSR, 0xb0),
		},
		"loopback data":  {w(regMCR, mcrLoop), w(regFCR, 1), w(regTHR, 'a'), w(regTHR, 'b'), r(regRBR, 'a'), r(regRBR, 'b'), r(regLSR, 0x60)},
		"loopback break": {w(regMCR, mcrLoop), w(regLCR, lcrBreak), w(regLCR, lcrBreak), r(regLSR, 0x71), r(regRBR, 0), r(regLSR, 0x60)},
	} {
		t.Run(name, func(t *testing.T) { run(t, attached(), steps) })
	}
}

func TestTimeout(t *testing.T) {
	u := attached()
	run(t, u, []step{w(regFCR, 0xc1), w(regIER, ierRDI), in('a'), in('b'), r(regIIR, 0xc1)})
	u.idle()
	run(t, u, []step{r(regIIR, 0xcc), r(regIIR, 0xcc), r(regRBR, 'a'), r(regIIR, 0xc1)})
	u.idle()
	run(t, u, []step{r(regIIR, 0xcc), r(regRBR, 'b'), r(regIIR, 0xc1)})
	if u.idle(); u.Timeout {
		t.Error("a timeout without data")
	}
}

func TestBusy(t *testing.T) {
	u := attached()
	u.setTxBusy(true)
	run(t, u, []step{r(regLSR, 0), w(regIER, ierTHRI), r(regIIR, 1), w(regTHR, 'a'), r(regIIR, 1)})
	u.setTxBusy(false)
	run(t, u, []step{r(regLSR, 0x60), r(regIIR, 2), r(regIIR, 1)})
}

func TestLine(t *testing.T) {
	u := attached()
	u.write(regIER, ierTHRI)
	for _, test := range []struct {
		mcr  byte
		want bool
	}{{0, false}, {mcrOUT2, true}, {mcrOUT2 | mcrLoop, false}, {mcrOUT2, true}} {
		if u.write(regMCR, test.mcr); u.line() != test.want {
			t.Errorf("MCR %#x: line %v", test.mcr, u.line())
		}
	}
}

// TestLinuxProbe does what Linux's autoconfig (drivers/tty/serial/8250) does to find out
// the chip type, and expects a 16550A at each step.
func TestLinuxProbe(t *testing.T) {
	u := attached()
	run(t, u, []step{
		w(regIER, 0), r(regIER, 0), w(regIER, 0x0f), r(regIER, 0x0f), w(regIER, 0), // it exists
		w(regMCR, mcrLoop|0x0a), r(regMSR, 0x92), w(regMCR, 0), // loop test: upper half 0x90
		w(regLCR, 0xbf), w(regFCR, 0), w(regLCR, 0), // no EFR: this writes FCR
		w(regFCR, 1), r(regIIR, 0xc1), // FIFO bits: 16550A or later
		w(regLCR, 0x80), r(regIIR, 0xc1), // not 0: no ST16C650 version 1
		w(regLCR, 0xbf), r(regIIR, 0xc1), // not 0: no version 2
		w(regLCR, 0), r(regMCR, 0), w(regLCR, 0xe0), r(regIIR, 0xc1), // no National SuperIO:
		w(regLCR, 0), w(regMCR, mcrLoop), w(regLCR, 0xe0), r(regIIR, 0xc1), // LOOP has no mirror
		w(regLCR, 0), w(regMCR, 0),
		w(regFCR, 0x21), r(regIIR, 0xc1), w(regFCR, 1), // no 64-byte FIFO
		w(regLCR, 0x80), w(regFCR, 0x21), r(regIIR, 0xc1), w(regFCR, 1), w(regLCR, 0), // nor a TI16750
		w(regIER, 0x40), r(regIER, 0), // no XScale
	})
	// size_fifo
	run(t, u, []step{w(regFCR, 7), w(regMCR, mcrLoop), w(regLCR, 3)})
	for i := range 256 {
		u.write(regTHR, byte(i))
	}
	n := 0
	for ; u.read(regLSR)&lsrDR != 0; n++ {
		if v := u.read(regRBR); v != byte(n) {
			t.Errorf("byte %d is %d", n, v)
		}
	}
	if n != 16 {
		t.Errorf("the FIFO holds %d bytes", n)
	}
}

func TestJSON(t *testing.T) {
	u := attached()
	run(t, u, []step{w(regFCR, 0xc1), w(regIER, 5), in('a'), in(lsrBI << 8), w(regSCR, 9), w(regMCR, 0x0b)})
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var v uart
	if err := json.Unmarshal(b, &v); err != nil || !reflect.DeepEqual(*u, v) {
		t.Errorf("%v, %+v\n%+v", err, u, v)
	}
	if err := v.check(); err != nil {
		t.Error(err)
	}
}
