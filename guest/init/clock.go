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

// A guest that is paused does not notice: its clocks stand still with it, so that
// afterwards its wall clock is behind. It is looked at twice a second, a quarter
// of a second from where seconds begin: there, even a reference of whole seconds
// tells what is off by more than that.
const (
	lookEvery = 500 * time.Millisecond
	lookAt    = 250 * time.Millisecond // behind a multiple of it
	tolerance = 250 * time.Millisecond
)

// moment is a time since 1970.
type moment = time.Duration

// reference tells the host's time: it is not before earliest, and before latest
// unless both are the same.
type reference interface {
	read() (earliest, latest moment, err error)
}

// keeper holds the guest's wall clock to the host's.
type keeper struct {
	host reference
	now  func() moment
	set  func(moment) error
}

// correct sets the clock if it is certainly wrong, by the middle of what it can
// be, and reports whether it did.
func (k *keeper) correct() (bool, error) {
	before := k.now()
	earliest, latest, err := k.host.read()
	after := k.now()
	allowance := tolerance
	if earliest != latest {
		allowance = 0 // they allow as much
	}
	if err != nil || after >= earliest-allowance && before <= latest+allowance {
		return false, err
	}
	return true, k.set(earliest + (latest-earliest)/2 + k.now() - after)
}

// refine sets a clock that was corrected by a reference of whole seconds exactly, at
// the beginning of the next one; pause waits a little.
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

// Where the kernel tells of devices by what they do, and where the devices are.
const (
	classes = "/sys/class"
	nodes   = "/dev"
)

// keepTime holds the wall clock to the host's from now on, unless there is nothing
// that tells the host's time.
func (g *guest) keepTime() {
	if l := newLoader(); l != nil {
		for _, name := range l.index.For("ptp_kvm") {
			// Not every KVM has what it needs, nor every kernel's clock.
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
			// The host may have lost what it tells its time by; there may be another.
			if k.host = findReference(classes, nodes, cmosPorts); k.host == nil || err == errForeign {
				complain("clock", err)
				return
			}
		}
	}()
}

var errForeign = errors.New("somebody has set it to another time than the host's, and keeps it from now on")

// keep looks at the clock whenever the timer behind fd says so, which it also does
// when somebody sets the clock. Whoever sets it to another time than the host's is
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
			_, err = arm(fd, k.now()) // takes the news of our own setting
		}
		if err != nil {
			return err
		}
	}
}

// look reports whether the clock is wrong, and corrects it unless somebody has set it so.
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

// arm sets the timer to the next time to look. It reports whether the clock was set
// since the timer was read or set last.
func arm(fd int, now moment) (set bool, err error) {
	next := (now-lookAt)/lookEvery*lookEvery + lookEvery + lookAt
	err = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET,
		&unix.ItimerSpec{Value: unix.NsecToTimespec(int64(next))}, nil)
	if err == unix.ECANCELED { // it is set all the same
		return true, nil
	}
	return false, os.NewSyscallError("timerfd", err)
}

func wallClock() moment {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME, &now) // it does not fail
	return moment(now.Nano())
}

func setWallClock(m moment) error {
	to := unix.NsecToTimespec(int64(m))
	return os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &to))
}

// findReference returns the best reference that there is, or nil.
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

// ptp is the host's clock, exactly: the driver ptp_kvm asks KVM.
type ptp struct{ device *os.File }

func (p ptp) read() (earliest, latest moment, err error) {
	var now unix.Timespec
	err = unix.ClockGettime(unix.FdToClockID(int(p.device.Fd())), &now)
	return moment(now.Nano()), moment(now.Nano()), os.NewSyscallError(p.device.Name(), err)
}

// rtc is the file that says which second the real-time clock is in, which goes on
// while the guest is paused.
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
