package main

import (
	"errors"
	"time"
)

// Ports and registers of a PC's real-time clock (MC146818), and bits of its registers A, B and D.
const (
	cmosIndex, cmosData = 0x70, 0x71

	cmosA, cmosB, cmosD = 0x0a, 0x0b, 0x0d

	updates = 1 << 7 // A: the time is about to change
	binary8 = 1 << 2 // B: not BCD
	hours24 = 1 << 1 // B
	valid   = 1 << 7 // D
)

// cmosTime lists the registers of seconds, minutes, hours, day, month and year.
var cmosTime = [...]byte{0x00, 0x02, 0x04, 0x07, 0x08, 0x09}

// cmos reads the real-time clock by its registers, for a kernel without a driver for it.
type cmos func(registers []byte) ([]byte, error)

func (c cmos) read() (earliest, latest moment, err error) {
	const tries = 100 // an update takes 2 ms
	for range tries {
		state, err := c([]byte{cmosA, cmosB, cmosD})
		if err != nil {
			return 0, 0, err
		}
		if state[2]&valid == 0 {
			break
		}
		first, err := c(cmosTime[:])
		if err != nil {
			return 0, 0, err
		}
		again, err := c(cmosTime[:])
		if err != nil {
			return 0, 0, err
		}
		if state[0]&updates == 0 && string(first) == string(again) {
			now := moment(decodeCMOS(first, state[1]).Unix()) * time.Second
			return now, now + time.Second, nil
		}
	}
	return 0, 0, errors.New("the real-time clock has no time")
}

// decodeCMOS returns the time in the registers of cmosTime; b is register B. The century is
// taken to be this one.
func decodeCMOS(r []byte, b byte) time.Time {
	number := func(v byte) int {
		if b&binary8 != 0 {
			return int(v)
		}
		return int(v>>4)*10 + int(v&15)
	}
	const pm = 1 << 7
	hour := number(r[2])
	if b&hours24 == 0 {
		hour = number(r[2]&^pm) % 12
		if r[2]&pm != 0 {
			hour += 12
		}
	}
	return time.Date(2000+number(r[5]), time.Month(number(r[4])), number(r[3]), hour, number(r[1]), number(r[0]), 0, time.UTC)
}

// cmosPorts reads registers through the I/O ports.
func cmosPorts(registers []byte) ([]byte, error) {
	values := make([]byte, len(registers))
	return values, withPorts(cmosIndex, 2, func() {
		for i, r := range registers {
			outb(cmosIndex, r)
			values[i] = inb(cmosData)
		}
	})
}
