package serial

import (
	"testing"
	"time"

	"vmm/test/allow"
)

const xmitSize = 4096 // UART_XMIT_SIZE

// pin is an interrupt line that tells a driver of its rising edges. Only the
// device calls Set, with its lock held.
type pin struct {
	t    testing.TB
	high bool
	edge chan struct{}
}

func newPin(t testing.TB) *pin { return &pin{t: t, edge: make(chan struct{}, 1)} }

func (p *pin) Set(high bool) {
	if high == p.high {
		p.t.Errorf("the line is set to %v twice", high)
	}
	if p.high = high; high {
		wake(p.edge)
	}
}

// driver is the guest's side. It does what Linux's 8250 driver does, and like it trusts
// the rising edges of the interrupt.
type driver struct {
	t     testing.TB
	d     *Device
	irq   *pin
	ier   byte
	tx    []byte // to print
	xmit  []byte // the part that the interrupt handler sends
	rx    []byte // received
	brks  int
	limit time.Duration
}

func newDriver(t testing.TB, d *Device, irq *pin) *driver {
	return &driver{t: t, d: d, irq: irq, limit: allow.Time(30 * time.Second)}
}

func (g *driver) in(reg uint64) byte {
	p := []byte{0xff}
	g.d.Read(reg, p)
	return p[0]
}

func (g *driver) out(reg uint64, v byte) { g.d.Write(reg, []byte{v}) }

func (g *driver) clearFIFOs() {
	g.out(regFCR, 1)
	g.out(regFCR, 7)
	g.out(regFCR, 0)
}

// open is serial8250_startup, set_termios and, last, DTR and RTS.
func (g *driver) open() {
	clear := func() {
		for _, reg := range []uint64{regLSR, regRBR, regIIR, regMSR} {
			g.in(reg)
		}
	}
	g.clearFIFOs()
	clear()
	g.out(regIER, ierTHRI)
	first := g.in(regIIR)
	g.out(regIER, 0)
	g.out(regIER, ierTHRI)
	if again := g.in(regIIR); first&1 == 0 && again&1 != 0 {
		g.t.Error("Linux would work around a UART_BUG_THRE")
	}
	g.out(regIER, 0)
	g.out(regLCR, 3)
	g.out(regMCR, mcrOUT2)
	g.out(regIER, ierTHRI)
	if lsr, iir := g.in(regLSR), g.in(regIIR); lsr&lsrTEMT != 0 && iir&1 != 0 {
		g.t.Error("Linux would work around a UART_BUG_TXEN")
	}
	g.out(regIER, 0)
	clear()
	g.late()
	g.ier = ierRLSI | ierRDI
	g.out(regFCR, 0x01)
	g.out(regFCR, 0x81)
	g.out(regIER, g.ier)
	g.out(regMCR, mcrDTR|mcrRTS|mcrOUT2)
}

// late takes an interrupt that arrived while interrupts were off.
func (g *driver) late() {
	select {
	case <-g.irq.edge:
		g.isr()
	default:
	}
}

// print is uart_write and start_tx; until continues with what did not fit.
func (g *driver) print(p []byte) {
	g.tx = append(g.tx, p...)
	g.refill()
}

func (g *driver) refill() {
	n := min(len(g.tx), xmitSize-len(g.xmit))
	g.xmit, g.tx = append(g.xmit, g.tx[:n]...), g.tx[n:]
	if len(g.xmit) > 0 && g.ier&ierTHRI == 0 {
		g.ier |= ierTHRI
		g.out(regIER, g.ier)
	}
}

func (g *driver) printed() bool { return len(g.tx)+len(g.xmit) == 0 }

// isr is serial8250_interrupt, including "too much work".
func (g *driver) isr() {
	for range 512 {
		iir := g.in(regIIR)
		if iir&1 != 0 {
			return
		}
		lsr := g.in(regLSR)
		if lsr&(lsrDR|lsrBI) != 0 {
			lsr = g.receive(lsr)
		}
		g.in(regMSR)
		if lsr&lsrTHRE != 0 {
			g.transmit()
		}
	}
	g.t.Error("too much work in one interrupt")
}

func (g *driver) receive(lsr byte) byte {
	for range 256 {
		v := g.in(regRBR)
		switch {
		case lsr&lsrBI != 0:
			g.brks++
		case lsr&lsrOE != 0:
			g.t.Error("overrun")
		default:
			g.rx = append(g.rx, v)
		}
		if lsr = g.in(regLSR); lsr&(lsrDR|lsrBI) == 0 {
			break
		}
	}
	return lsr
}

func (g *driver) transmit() {
	for range min(len(g.xmit), 16) {
		g.out(regTHR, g.xmit[0])
		g.xmit = g.xmit[1:]
	}
	if len(g.xmit) == 0 && g.ier&ierTHRI != 0 {
		g.ier &^= ierTHRI
		g.out(regIER, g.ier)
	}
}

// until takes interrupts until done returns true.
func (g *driver) until(done func() bool) {
	g.t.Helper()
	deadline := time.NewTimer(g.limit)
	defer deadline.Stop()
	for !done() {
		select {
		case <-g.irq.edge:
			g.isr()
			g.refill()
		case <-deadline.C:
			g.t.Fatalf("no interrupt: %d bytes received, %d left to print", len(g.rx), len(g.tx)+len(g.xmit))
		}
	}
}

// poll is a console driver without interrupts (printk): it waits for an empty
// transmitter only for a limited time, and then writes anyway.
func (g *driver) poll(p []byte) {
	for _, v := range p {
		for try := 0; g.in(regLSR)&lsrTHRE == 0 && try < 3; try++ {
		}
		g.out(regTHR, v)
	}
}
