package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeClock has a guest's clock and the host's. Each reading advances both by step.
type fakeClock struct {
	host, guest moment
	step        moment
	whole       bool // the reference has whole seconds
	err         error
	sets        int
}

func (f *fakeClock) read() (earliest, latest moment, err error) {
	f.pass(f.step)
	if f.whole {
		second := f.host / time.Second * time.Second
		return second, second + time.Second, f.err
	}
	return f.host, f.host, f.err
}

func (f *fakeClock) pass(d moment) { f.host, f.guest = f.host+d, f.guest+d }

func (f *fakeClock) keeper() *keeper {
	return &keeper{f, func() moment { return f.guest }, func(m moment) error { f.guest = m; f.sets++; return nil }}
}

// TestCorrect: a clock error is corrected if it is too large, and otherwise left alone.
// The guest checks lookAt after each half second.
func TestCorrect(t *testing.T) {
	const now = 1_800_000_000 * time.Second
	for _, whole := range []bool{false, true} {
		for _, test := range []struct {
			behind moment
			left   moment // largest error afterwards
			set    bool
		}{
			{0, 0, false},
			{100 * time.Millisecond, 100 * time.Millisecond, false},
			{-100 * time.Millisecond, 100 * time.Millisecond, false},
			{600 * time.Millisecond, 20 * time.Millisecond, true},
			{-600 * time.Millisecond, 20 * time.Millisecond, true},
			{10 * time.Minute, 20 * time.Millisecond, true},
			{-1000 * time.Hour, 20 * time.Millisecond, true},
		} {
			// Twice a second, as the timer does.
			set := false
			f := &fakeClock{guest: now + lookAt, whole: whole, step: time.Millisecond}
			f.host = f.guest + test.behind
			for range 2 {
				wrong, err := f.keeper().correct()
				if err != nil {
					t.Fatal(err)
				}
				if wrong {
					set = true
					if err := f.keeper().refine(func() { f.pass(precision) }); err != nil {
						t.Fatal(err)
					}
				}
				f.pass(lookEvery)
			}
			if off := (f.host - f.guest).Abs(); set != test.set || off > test.left {
				t.Errorf("whole seconds %v, behind by %v: set %v, then off by %v", whole, test.behind, set, off)
			}
		}
	}
	f := &fakeClock{host: now, err: errors.New("broken")}
	if wrong, err := f.keeper().correct(); wrong || err == nil || f.sets != 0 {
		t.Errorf("without a reference: %v, %v", wrong, err)
	}
}

// TestLookForeign: a time set by another program stays, and is wrong unless it is the
// host's.
func TestLookForeign(t *testing.T) {
	f := &fakeClock{host: 5000 * time.Second, guest: 3000 * time.Second}
	if wrong, err := f.keeper().look(true); !wrong || err != nil || f.sets != 0 {
		t.Errorf("another time: %v, %v, set %d times", wrong, err, f.sets)
	}
	f.guest = f.host
	if wrong, err := f.keeper().look(true); wrong || err != nil {
		t.Errorf("the host's time: %v, %v", wrong, err)
	}
}

// TestArm: the timer expires a quarter of a second after a half second.
func TestArm(t *testing.T) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	now := wallClock()
	if set, err := arm(fd, now); set || err != nil {
		t.Fatal(set, err)
	}
	var left unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &left); err != nil {
		t.Fatal(err)
	}
	at := now + moment(left.Value.Nano())
	if d := (at - lookAt) % lookEvery; left.Value.Nano() <= 0 || moment(left.Value.Nano()) > lookEvery || d > 50*time.Millisecond && d < lookEvery-50*time.Millisecond {
		t.Errorf("armed for %v from now, %v behind", moment(left.Value.Nano()), d)
	}
}

func TestFindReference(t *testing.T) {
	none := cmos(func([]byte) ([]byte, error) { return nil, unix.EPERM })
	class := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(class, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if r := findReference(class, class, none); r != nil {
		t.Errorf("of nothing: %v", r)
	}
	put("rtc/rtc0/since_epoch", "garbage\n")
	if r := findReference(class, class, none); r != nil {
		t.Errorf("of a broken one: %v", r)
	}
	put("rtc/rtc0/since_epoch", "1800000000\n")
	put("ptp/ptp0/clock_name", "of a network card\n")
	r := findReference(class, class, none)
	if r == nil {
		t.Fatal("the real-time clock is not found")
	}
	if from, to, err := r.read(); from != 1_800_000_000*time.Second || to-from != time.Second || err != nil {
		t.Errorf("%v, %v, %v", from, to, err)
	}
}

// TestCMOS: a real-time clock's registers give a time, in each of their formats. A clock
// that is being updated, or has no valid time, gives none.
func TestCMOS(t *testing.T) {
	pc := map[byte]byte{0x00: 0x56, 0x02: 0x34, 0x04: 0x13, 0x07: 0x28, 0x08: 0x11, 0x09: 0x26, cmosB: hours24, cmosD: valid}
	reads := 0
	clock := cmos(func(registers []byte) (values []byte, err error) {
		for _, r := range registers {
			values = append(values, pc[r])
		}
		if reads++; reads%4 == 0 {
			pc[0x00]++ // between two readings
		}
		return values, nil
	})
	want := time.Date(2026, 11, 28, 13, 34, 56, 0, time.UTC)
	check := func(what string, want time.Time) {
		t.Helper()
		got, next, err := clock.read()
		if d := got - moment(want.Unix())*time.Second; err != nil || d < 0 || d > 2*time.Second || next-got != time.Second {
			t.Errorf("%s: %v, %v, %v", what, time.Unix(0, int64(got)).UTC(), next-got, err)
		}
	}
	check("BCD", want)
	pc[0x04], pc[cmosB] = 0x81, 0
	check("BCD, 12 hours", want)
	for r, v := range map[byte]byte{0x00: 56, 0x02: 34, 0x04: 13, 0x07: 28, 0x08: 11, 0x09: 26, cmosB: hours24 | binary8} {
		pc[r] = v
	}
	check("binary", want)
	pc[cmosA] = updates
	if _, _, err := clock.read(); err == nil {
		t.Error("a clock that changes for ever has a time")
	}
	pc[cmosA], pc[cmosD] = 0, 0
	if _, _, err := clock.read(); err == nil {
		t.Error("a clock whose battery is empty has a time")
	}
}
