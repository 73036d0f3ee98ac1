package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmm/guest/modules"
)

// A paused guest does not notice the pause: its clocks stop, and its wall clock is slow
// afterwards. The clock is checked twice a second, a quarter of a second away from the
// start of a second: there, even a reference of whole seconds shows any error of more than
// a quarter of a second.
const (
	lookEvery = 500 * time.Millisecond
	lookAt    = 250 * time.Millisecond // after a multiple of it
	tolerance = 250 * time.Millisecond
)

// moment is a time since 1970.
type moment = time.Duration

// reference tells the host's time: it is at least earliest, and before latest unless both
// are the same.
type reference interface {
	read() (earliest, latest moment, err error)
}

// keeper keeps the guest's wall clock at the host's time.
type keeper struct {
	host reference
	now  func() moment
	set  func(moment) error
}

// correct sets the clock if it is certainly wrong, to the middle of the possible times. It
// reports whether the clock was wrong.
func (k *keeper) correct() (bool, error) {
	before := k.now()
	earliest, latest, err := k.host.read()
	after := k.now()
	allowance := tolerance
	if earliest != latest {
		allowance = 0 // the two allow as much
	}
	if err != nil || after >= earliest-allowance && before <= latest+allowance {
		return false, err
	}
	return true, k.set(earliest + (latest-earliest)/2 + k.now() - after)
}

// refine sets a clock exactly after a reference of whole seconds has corrected it: it
// waits for the beginning of the next second. pause waits a little.
func (k *keeper) refine(pause func()) error {
	first, latest, err := k.host.read()
	for began := k.now(); err == nil && first != latest && k.now()-began < 2*time.Second; pause() {
		var second moment
		if second, _, err = k.host.read(); err == nil && second != first {
			return k.set(second)
		}
	}
	return err
}

// precision is how exactly the beginning of a second is found.
const precision = 10 * time.Millisecond

// Where the kernel lists devices by class, and where the device nodes are.
const (
	classes = "/sys/class"
	nodes   = "/dev"
)

// keepTime keeps the wall clock at the host's time from now on, unless there is no
// reference for it.
func (g *guest) keepTime() {
	if l := newLoader(); l != nil {
		for _, name := range l.index.For("ptp_kvm") {
			// Not every KVM, and not every kernel's clock, supports it.
			if err := modules.Load(filepath.Join(moduleDir, name+".ko")); !errors.Is(err, unix.EOPNOTSUPP) {
				complain("clock", err)
			}
		}
	}
	k := &keeper{findReference(classes, nodes, cmosPorts), wallClock, setWallClock}
	if k.host == nil {
		return
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC)
	if err != nil {
		complain("clock", os.NewSyscallError("timerfd", err))
		return
	}
	go func() {
		defer unix.Close(fd)
		for {
			err := k.keep(fd)
			// The host may have lost its reference for the time; there may be another.
			if k.host = findReference(classes, nodes, cmosPorts); k.host == nil || err == errForeign {
				complain("clock", err)
				return
			}
		}
	}()
}

var errForeign = errors.New("somebody has set it to another time than the host's, and keeps it from now on")

// keep checks the clock whenever the timer behind fd expires, and also when the clock is
// set. If another process sets the clock to a time that is not the host's, that process is
// left in charge.
func (k *keeper) keep(fd int) error {
	for {
		set, err := arm(fd, k.now())
		for err == nil && !set {
			var b [8]byte
			if _, err = unix.Read(fd, b[:]); err == unix.EINTR {
				err = nil
				continue
			}
			set = err == unix.ECANCELED
			break
		}
		if err != nil && !set {
			return err
		}
		wrong, err := k.look(set)
		if wrong {
			if set {
				return errForeign
			}
			_, err = arm(fd, k.now()) // takes the notice of our own setting
		}
		if err != nil {
			return err
		}
	}
}

// look reports whether the clock is wrong. It corrects the clock unless foreign is set: then
// another process has set it.
func (k *keeper) look(foreign bool) (bool, error) {
	if foreign {
		onlyLook := keeper{k.host, k.now, func(moment) error { return nil }}
		return onlyLook.correct()
	}
	wrong, err := k.correct()
	if wrong && err == nil {
		err = k.refine(func() { time.Sleep(precision) })
	}
	return wrong, err
}

// arm sets the timer to the next check. It reports whether the clock was set since the
// timer was last read or set.
func arm(fd int, now moment) (set bool, err error) {
	next := (now-lookAt)/lookEvery*lookEvery + lookEvery + lookAt
	err = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET,
		&unix.ItimerSpec{Value: unix.NsecToTimespec(int64(next))}, nil)
	if err == unix.ECANCELED { // the timer is set all the same
		return true, nil
	}
	return false, os.NewSyscallError("timerfd", err)
}

func wallClock() moment {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME, &now) // this does not fail
	return moment(now.Nano())
}

func setWallClock(m moment) error {
	to := unix.NsecToTimespec(int64(m))
	return os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &to))
}

// findReference returns the best available reference, or nil.
func findReference(class, dev string, ports cmos) reference {
	names, _ := filepath.Glob(filepath.Join(class, "ptp", "*", "clock_name"))
	for _, path := range names {
		if name, _ := os.ReadFile(path); strings.TrimSpace(string(name)) != "KVM virtual PTP" {
			continue
		}
		f, err := os.Open(filepath.Join(dev, filepath.Base(filepath.Dir(path))))
		if err != nil {
			complain("clock", err)
			continue
		}
		p := ptp{f}
		if _, _, err := p.read(); err == nil {
			return p
		}
		f.Close()
	}
	for _, r := range []reference{rtc(filepath.Join(class, "rtc", "rtc0", "since_epoch")), ports} {
		if _, _, err := r.read(); err == nil {
			return r
		}
	}
	return nil
}

// ptp is the host's clock, exactly: the driver ptp_kvm asks KVM for it.
type ptp struct{ device *os.File }

func (p ptp) read() (earliest, latest moment, err error) {
	var now unix.Timespec
	err = unix.ClockGettime(unix.FdToClockID(int(p.device.Fd())), &now)
	return moment(now.Nano()), moment(now.Nano()), os.NewSyscallError(p.device.Name(), err)
}

// rtc is the file that gives the current second of the real-time clock, which continues to
// run while the guest is paused.
type rtc string

func (r rtc) read() (earliest, latest moment, err error) {
	text, err := os.ReadFile(string(r))
	if err != nil {
		return 0, 0, err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", string(r), err)
	}
	now := moment(seconds) * time.Second
	return now, now + time.Second, nil
}
