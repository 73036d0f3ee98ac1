package serial

import (
	"errors"
	"fmt"
)

// Registers by offset. Offsets 0 and 1 are the divisor latch while LCR.DLAB is
// set. (PC16550D data sheet, section 8.)
const (
	regRBR = 0 // read: receiver buffer
	regTHR = 0 // write: transmitter holding
	regIER = 1
	regIIR = 2 // read
	regFCR = 2 // write
	regLCR = 3
	regMCR = 4
	regLSR = 5
	regMSR = 6
	regSCR = 7
)

const (
	ierRDI  = 1 << 0 // received data
	ierTHRI = 1 << 1 // transmitter holding register empty
	ierRLSI = 1 << 2 // receiver line status
	ierMSI  = 1 << 3 // modem status
	ierMask = 0x0f

	// IIR in order of falling priority; the values are the identification bits.
	iirRLSI    = 0x06
	iirRDI     = 0x04
	iirTimeout = 0x0c
	iirTHRI    = 0x02
	iirMSI     = 0x00
	iirNone    = 0x01
	iirFIFO    = 0xc0 // both bits: a working FIFO, which makes it a 16550A

	fcrEnable  = 1 << 0
	fcrClearRX = 1 << 1
	fcrTrigger = 0xc0

	lcrBreak = 1 << 6
	lcrDLAB  = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOUT1 = 1 << 2
	mcrOUT2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1f

	lsrDR     = 1 << 0
	lsrOE     = 1 << 1
	lsrBI     = 1 << 4
	lsrTHRE   = 1 << 5
	lsrTEMT   = 1 << 6
	lsrFIFO   = 1 << 7
	lsrErrors = 0x1e // OE, PE, FE, BI: a read clears them

	msrDelta = 0x0f
	msrCTS   = 1 << 4
	msrDSR   = 1 << 5
	msrRI    = 1 << 6
	msrDCD   = 1 << 7
)

// fifoSize is the depth of a 16550A's receiver.
const fifoSize = 16

// uart is the register file of a 16550A and nothing else: it has no lock, no host and
// no clock. Its JSON is the snapshot. Transmission takes no time, so the transmitter
// has no FIFO: write hands each byte to the caller, which sets TxBusy when it wants
// no more.
type uart struct {
	IER, LCR, MCR, SCR byte
	FCR                byte   // the enable and trigger bits
	LSR                byte   // the error bits only; the others are computed
	MSR                byte   // the lines in bits 7-4, their changes in bits 3-0
	Lines              byte   // the modem inputs outside the chip, bits 7-4 of MSR
	Divisor            uint16 // 1 = 115,200 baud; has no effect

	RX      [fifoSize]uint16 // oldest first: a byte and, in bits 15-8, its LSR errors
	RXLen   int
	Timeout bool // data waited in the FIFO below the trigger level

	TxBusy  bool // THRE and TEMT read 0
	TxEmpty bool // the THR-empty interrupt is due
}

// reset is the master reset. What is outside the chip does not change. A reset leaves
// the divisor undefined, but Linux divides by it: 0 would be fatal.
func (u *uart) reset() {
	*u = uart{MSR: u.Lines, Lines: u.Lines, Divisor: 1, TxBusy: u.TxBusy}
}

// check rejects a state that the guest cannot cause.
func (u *uart) check() error {
	if u.RXLen < 0 || u.RXLen > u.depth() {
		return fmt.Errorf("serial: state has %d bytes in a FIFO of %d", u.RXLen, u.depth())
	}
	if u.IER&^ierMask != 0 || u.MCR&^mcrMask != 0 || u.FCR&^(fcrEnable|fcrTrigger) != 0 || u.LSR&^lsrErrors != 0 {
		return errors.New("serial: state has reserved bits set")
	}
	for _, c := range u.RX {
		if c>>8&^lsrErrors != 0 {
			return errors.New("serial: state has a byte with unknown errors")
		}
	}
	return nil
}

func (u *uart) read(reg int) byte {
	if u.LCR&lcrDLAB != 0 {
		switch reg {
		case 0:
			return byte(u.Divisor)
		case 1:
			return byte(u.Divisor >> 8)
		}
	}
	switch reg {
	case regRBR:
		return u.pop()
	case regIER:
		return u.IER
	case regIIR:
		return u.readIIR()
	case regLCR:
		return u.LCR
	case regMCR:
		return u.MCR
	case regLSR:
		return u.readLSR()
	case regMSR:
		v := u.MSR
		u.MSR &^= msrDelta
		return v
	default:
		return u.SCR
	}
}

// write sets a register. sent means that the transmitter sent v to the host.
func (u *uart) write(reg int, v byte) (sent bool) {
	if u.LCR&lcrDLAB != 0 {
		switch reg {
		case 0:
			u.Divisor = u.Divisor&0xff00 | uint16(v)
			return false
		case 1:
			u.Divisor = u.Divisor&0xff | uint16(v)<<8
			return false
		}
	}
	switch reg {
	case regTHR:
		return u.writeTHR(v)
	case regIER:
		if v&^u.IER&ierTHRI != 0 && !u.TxBusy {
			u.TxEmpty = true // enabling it with an empty THR interrupts at once
		}
		u.IER = v & ierMask
	case regFCR:
		u.writeFCR(v)
	case regLCR:
		if v&^u.LCR&lcrBreak != 0 && u.loop() {
			u.receive(lsrBI << 8)
		}
		u.LCR = v
	case regMCR:
		u.writeMCR(v)
	case regSCR:
		u.SCR = v
	}
	return false
}

// writeTHR sends v at once, so the THR is empty and the interrupt due again, unless
// the host cannot keep up. The interrupt line does not drop between two bytes: an
// interrupted driver reads IIR before it writes.
func (u *uart) writeTHR(v byte) (sent bool) {
	u.TxEmpty = !u.TxBusy
	if u.loop() {
		u.receive(uint16(v))
		return false
	}
	return true
}

func (u *uart) writeFCR(v byte) {
	if (v^u.FCR)&fcrEnable != 0 || v&fcrEnable != 0 && v&fcrClearRX != 0 {
		u.RXLen, u.Timeout = 0, false
	}
	u.FCR = 0
	if v&fcrEnable != 0 {
		u.FCR = v & (fcrEnable | fcrTrigger)
	}
}

func (u *uart) writeMCR(v byte) {
	u.MCR = v & mcrMask
	u.setLines(u.lines())
}

// modem sets the modem inputs outside the chip.
func (u *uart) modem(lines byte) {
	u.Lines = lines
	u.setLines(u.lines())
}

// lines returns the inputs that MSR shows: in loopback RTS, DTR, OUT1 and OUT2 become
// CTS, DSR, RI and DCD.
func (u *uart) lines() byte {
	if u.loop() {
		return u.MCR&mcrRTS<<3 | u.MCR&mcrDTR<<5 | u.MCR&(mcrOUT1|mcrOUT2)<<4
	}
	return u.Lines
}

func (u *uart) setLines(lines byte) {
	changed := (u.MSR ^ lines) &^ msrDelta
	if lines&msrRI != 0 {
		changed &^= msrRI // only the end of a ring counts
	}
	u.MSR = lines | u.MSR&msrDelta | changed>>4
}

func (u *uart) loop() bool { return u.MCR&mcrLoop != 0 }

// ready reports whether the driver takes bytes from outside: it asserts RTS.
func (u *uart) ready() bool { return u.MCR&(mcrRTS|mcrLoop) == mcrRTS }

func (u *uart) depth() int {
	if u.FCR&fcrEnable != 0 {
		return fifoSize
	}
	return 1
}

func (u *uart) trigger() int {
	if u.FCR&fcrEnable == 0 {
		return 1
	}
	return [4]int{1, 4, 8, 14}[u.FCR>>6]
}

// receive takes a byte and its errors from the line. Without room a byte is lost: a
// FIFO keeps the old bytes; without a FIFO the new byte replaces the old.
func (u *uart) receive(v uint16) {
	if u.RXLen == u.depth() {
		u.LSR |= lsrOE
		if u.FCR&fcrEnable == 0 {
			u.RX[0] = v
			u.LSR |= byte(v >> 8)
		}
		return
	}
	u.RX[u.RXLen] = v
	u.RXLen++
	if u.RXLen == 1 {
		u.LSR |= byte(v >> 8)
	}
}

func (u *uart) pop() byte {
	v := byte(u.RX[0])
	if u.RXLen == 0 {
		return v // the last byte again, as in the hardware
	}
	u.Timeout = false
	u.RXLen--
	if u.RXLen > 0 {
		copy(u.RX[:], u.RX[1:u.RXLen+1])
		u.LSR |= byte(u.RX[0] >> 8) // errors show once their byte is the oldest
	}
	return v
}

// waiting reports whether there is data that no interrupt has announced.
func (u *uart) waiting() bool {
	return u.IER&ierRDI != 0 && u.RXLen > 0 && u.RXLen < u.trigger() && !u.Timeout
}

// idle is the receiver's timeout: for the time of four characters, nothing came and
// nothing was read.
func (u *uart) idle() { u.Timeout = u.Timeout || u.waiting() }

// setTxBusy tells the chip that the host lags, or no longer does: then the THR is
// empty.
func (u *uart) setTxBusy(busy bool) {
	if u.TxBusy != busy {
		u.TxBusy, u.TxEmpty = busy, !busy
	}
}

func (u *uart) readLSR() byte {
	v := u.LSR
	if u.RXLen > 0 {
		v |= lsrDR
	}
	if !u.TxBusy {
		v |= lsrTHRE | lsrTEMT
	}
	if u.FCR&fcrEnable != 0 {
		for _, c := range u.RX[:u.RXLen] {
			if c>>8 != 0 {
				v |= lsrFIFO
			}
		}
	}
	u.LSR = 0
	u.RX[0] &= 0xff // reported
	return v
}

// pending returns the pending interrupt with the highest priority.
func (u *uart) pending() byte {
	switch {
	case u.IER&ierRLSI != 0 && u.LSR != 0:
		return iirRLSI
	case u.IER&ierRDI != 0 && u.RXLen >= u.trigger():
		return iirRDI
	case u.IER&ierRDI != 0 && u.RXLen > 0 && u.Timeout:
		return iirTimeout
	case u.IER&ierTHRI != 0 && u.TxEmpty:
		return iirTHRI
	case u.IER&ierMSI != 0 && u.MSR&msrDelta != 0:
		return iirMSI
	}
	return iirNone
}

func (u *uart) readIIR() byte {
	v := u.pending()
	if v == iirTHRI {
		u.TxEmpty = false
	}
	if u.FCR&fcrEnable != 0 {
		v |= iirFIFO
	}
	return v
}

// line returns the level of the interrupt on the bus. A PC gates it with OUT2, which
// loopback holds inactive.
func (u *uart) line() bool {
	return u.MCR&(mcrOUT2|mcrLoop) == mcrOUT2 && u.pending() != iirNone
}
