package machine_test

import (
	"encoding/binary"
	"math/bits"
	"os"
	"sync"
	"testing"
	"time"

	"vmm/guest/payload"
	"vmm/machine"
	"vmm/test/allow"
)

// Addresses of the time payload's record and its fields.
const (
	clockPage = 0x100_0000 // struct pvclock_vcpu_time_info, as KVM writes it
	record    = 0x100_1000

	recTSC      = record
	recClock    = record + 8
	recVersion  = record + 40 // of the page, before the others
	recVersion2 = record + 44 // and after them
	recCount    = record + 48 // current count of the timer
	recIRR      = record + 52 // the word with timerVector
	recDeadline = record + 56
	recSize     = 64

	apic        = 0xfee0_0000
	apicSVR     = apic + 0xf0
	apicIRR     = apic + 0x200 + 0x10*(timerVector/32)
	apicTimer   = apic + 0x320
	apicInitial = apic + 0x380
	apicCurrent = apic + 0x390
	apicDivide  = apic + 0x3e0
	timerVector = 0xec

	countNs = 128 // for the divider set below, as the timer's bus runs at 1 GHz
)

// tellTime is a payload that sets up the timer and then prints the time forever.
func tellTime(timer ...[]byte) []byte {
	const systemTime = 0x4b56_4d01 // MSR_KVM_SYSTEM_TIME_NEW
	return payload.Code(
		payload.WriteMSR(systemTime, clockPage|1),
		payload.StoreFar32(apicSVR, 0x1ff),
		payload.StoreFar32(apicDivide, 0xa),
		payload.Code(timer...),
		payload.Forever(payload.Code(
			payload.LoadFar32(clockPage, recVersion),
			payload.ReadTSC(recTSC),
			payload.Copy(recClock, clockPage, 32),
			payload.LoadFar32(clockPage, recVersion2),
			payload.LoadFar32(apicCurrent, recCount),
			payload.LoadFar32(apicIRR, recIRR),
			payload.OutString(com1, record, recSize),
		)),
	)
}

// told is one record.
type told struct {
	tsc, deadline uint64
	clock, tscNs  uint64 // kvmclock, and tsc as KVM counts it, in ns; 0 if KVM was just writing it
	count         uint32
	expired       bool
	came          time.Time // arrival time on the host
}

func decodeTold(b []byte) told {
	le := binary.LittleEndian
	at := func(addr int) []byte { return b[addr-record:] }
	t := told{tsc: le.Uint64(b), count: le.Uint32(at(recCount)), deadline: le.Uint64(at(recDeadline)),
		expired: le.Uint32(at(recIRR))&(1<<(timerVector%32)) != 0}
	page := at(recClock)
	if v := le.Uint32(page); v%2 != 0 || v != le.Uint32(at(recVersion)) || v != le.Uint32(at(recVersion2)) {
		return t
	}
	// struct pvclock_vcpu_time_info: version, pad, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift
	ns := func(cycles uint64) uint64 {
		if shift := int8(page[28]); shift < 0 {
			cycles >>= -shift
		} else {
			cycles <<= shift
		}
		hi, lo := bits.Mul64(cycles, uint64(le.Uint32(page[24:])))
		return hi<<32 + lo>>32
	}
	t.clock = le.Uint64(page[16:]) + ns(t.tsc-le.Uint64(page[8:]))
	t.tscNs = ns(t.tsc)
	return t
}

// listener collects what a tellTime payload prints.
type listener struct {
	mu   sync.Mutex
	part []byte // guarded by mu
	told []told // likewise
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for ; len(l.part) >= recSize; l.part = l.part[recSize:] {
		r := decodeTold(l.part)
		r.came = time.Now()
		l.told = append(l.told, r)
	}
	return len(p), nil
}

// after waits for a record that satisfies f, and returns all from the n-th on.
func (l *listener) after(t *testing.T, n int, f func(told) bool) []told {
	t.Helper()
	for deadline := time.Now().Add(allow.Time(30 * time.Second)); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		list := l.told[min(n, len(l.told)):]
		l.mu.Unlock()
		for i, r := range list {
			if f(r) {
				return list[:i+1]
			}
		}
	}
	t.Fatal("the payload does not tell it")
	return nil
}

// TestTimeInPause: no time passes for a paused guest by any of its clocks, and its
// timer keeps its remaining time.
func TestTimeInPause(t *testing.T) {
	needKVM(t)
	const deadline = 1 << 30 // in cycles: at least a third of a second
	// A KVM without VT-x and AMD-V has only the host's time-stamp counter.
	flag, _ := machine.HardwareFlag(machine.CPUInfo)
	for name, timer := range map[string][]byte{
		"one-shot": payload.Code(payload.StoreFar32(apicTimer, 1<<16|timerVector), payload.StoreFar32(apicInitial, 0x7fff_ffff)),
		"periodic": payload.Code(payload.StoreFar32(apicTimer, 1<<17|1<<16|timerVector), payload.StoreFar32(apicInitial, 0x7fff_ffff)),
		"deadline": payload.Code(payload.StoreFar32(apicTimer, 2<<17|timerVector), payload.Deadline(deadline, recDeadline)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // so that the pauses run in parallel
			if name == "deadline" && flag == "" {
				t.Skip("a deadline is one of the counter, which runs on here")
			}
			l := new(listener)
			c := kernel(t, tellTime(timer))
			c.ConsoleOut = l
			n, before, after, ran := aroundPause(t, c, l)
			check := func(what string, d time.Duration) {
				if d < 0 || d > ran {
					t.Errorf("%s went on by %v; the guest ran for %v at most", what, d, ran)
				}
			}
			check("kvmclock", time.Duration(after.clock-before.clock))
			if name != "deadline" {
				check("the timer", time.Duration(before.count-after.count)*countNs)
			}
			if flag == "" {
				return
			}
			check("the counter", time.Duration(after.tscNs-before.tscNs))
			if clock, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource"); string(clock) == "tsc\n" {
				// On other hosts KVM lets the counter catch up now and then.
				if d := time.Duration(after.clock-after.tscNs) - time.Duration(before.clock-before.tscNs); d.Abs() > 100*time.Microsecond {
					t.Errorf("kvmclock and the counter have moved apart by %v", d)
				}
			}
			if name == "deadline" {
				checkDeadline(t, l, n, before)
			}
		})
	}
}

// aroundPause runs c, whose output goes to l, and pauses it. It returns the last record
// from before the pause, and the first from after it, which has number n or later. ran is
// how long the guest may have run between them. It allows three quarters of the pause for
// records to arrive, which a busy host delays.
func aroundPause(t *testing.T, c machine.Config, l *listener) (n int, before, after told, ran time.Duration) {
	pause := 2 * time.Second
	if os.Getenv("VMM_LAB") != "" {
		pause *= 3
	}
	m, err := machine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	go m.Run(t.Context())
	l.after(t, 0, func(r told) bool { return r.clock != 0 })
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	time.Sleep(pause)
	l.mu.Lock()
	for n = len(l.told); before.clock == 0; n-- {
		before = l.told[n-1]
	}
	n = len(l.told)
	l.mu.Unlock()
	paused := time.Since(began)
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	// The first record may have been in transit.
	list := l.after(t, n+1, func(r told) bool { return r.clock != 0 })
	after = list[len(list)-1]
	return n, before, after, after.came.Sub(before.came) - paused + pause*3/4
}

// checkDeadline checks that the timer expired when the guest's counter reached the
// deadline and not before, although the host's counter had long passed it.
func checkDeadline(t *testing.T, l *listener, n int, before told) {
	t.Helper()
	if before.expired {
		t.Skip("the timer expired before the pause: this host is too slow")
	}
	list := l.after(t, n+1, func(r told) bool { return r.expired })
	last := list[len(list)-1]
	if last.tsc < last.deadline {
		t.Errorf("the timer expired at %d, %d cycles too early", last.tsc, last.deadline-last.tsc)
	}
	if len(list) > 1 {
		if late := list[len(list)-2].tsc; int64(late-last.deadline) > 1<<30 {
			t.Errorf("the timer had not expired at %d, %d cycles late", late, late-last.deadline)
		}
	}
}
