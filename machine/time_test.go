package machine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio"
	"vmm/guest/payload"
	"vmm/kvm"
)

const fakeKHz = 2_100_000

// fakeTime is a KVM whose clocks follow host, which each call advances by a
// microsecond.
type fakeTime struct {
	host   uint64 // ns
	ahead  uint64 // how far kvmclock is ahead of host
	pit    kvm.PIT
	calls  []string
	broken string // the call that fails

	// Linux before 5.16 compares a counter write with these.
	written, writtenAt, offset uint64
}

// fakeTimeCPU is a vCPU of a fakeTime.
type fakeTimeCPU struct {
	vm       *fakeTime
	offset   uint64
	deadline uint64
	lapic    kvm.LAPIC
	old      bool   // no offsets
	fixed    bool   // offsets do nothing
	loose    bool   // the host's counter is unstable
	left     uint64 // if loose: its counter when it last left the guest
	id       int
}

func (f *fakeTime) call(what string) error {
	f.host += 1000
	f.calls = append(f.calls, what)
	if what == f.broken {
		return errors.New(what)
	}
	return nil
}

func (f *fakeTime) tsc() uint64 { return cycles(f.host, fakeKHz) }

func (f *fakeTime) Clock() (uint64, error) { return f.host + f.ahead, f.call("Clock") }
func (f *fakeTime) SetClock(ns uint64) error {
	err := f.call("SetClock")
	f.ahead = ns - f.host
	return err
}
func (f *fakeTime) PIT() (kvm.PIT, error)   { return f.pit, f.call("PIT") }
func (f *fakeTime) SetPIT(p kvm.PIT) error  { f.pit = p; return f.call("SetPIT") }
func (c *fakeTimeCPU) TSCKHz() (int, error) { return fakeKHz, c.vm.call("TSCKHz") }
func (c *fakeTimeCPU) KVMClockCtrl() error  { return c.vm.call("KVMClockCtrl") }
func (c *fakeTimeCPU) name(s string) string { return fmt.Sprintf("%s %d", s, c.id) }
func (c *fakeTimeCPU) counter() uint64      { return c.vm.tsc() + c.offset }
func (c *fakeTimeCPU) LAPIC() (*kvm.LAPIC, error) {
	l := c.lapic
	return &l, c.vm.call(c.name("LAPIC"))
}
func (c *fakeTimeCPU) SetLAPIC(l *kvm.LAPIC) error {
	c.lapic = *l
	return c.vm.call(c.name("SetLAPIC"))
}

func (c *fakeTimeCPU) TSCOffset() (uint64, error) {
	if c.old {
		return 0, unix.ENXIO
	}
	c.load()
	return c.offset, c.vm.call("TSCOffset")
}

// load is what kvm_arch_vcpu_load does on a host whose counter is unstable.
func (c *fakeTimeCPU) load() {
	if c.loose {
		c.offset = c.left - c.vm.tsc()
	}
}

func (c *fakeTimeCPU) SetTSCOffset(offset uint64) error {
	if c.old {
		return unix.ENXIO
	}
	if !c.fixed {
		c.offset, c.left = offset, c.vm.tsc()+offset
	}
	return c.vm.call(c.name("SetTSCOffset"))
}

func (c *fakeTimeCPU) MSRs(list []kvm.MSR) error {
	err := c.vm.call("MSRs")
	c.load()
	for i := range list {
		switch list[i].Index {
		case msrTSC:
			list[i].Data = c.counter()
		case msrTSCDeadline:
			list[i].Data = c.deadline
		}
	}
	return err
}

func (c *fakeTimeCPU) SetMSRs(list []kvm.MSR) error {
	for _, m := range list {
		switch m.Index {
		case msrTSC:
			c.writeTSC(m.Data)
			c.vm.calls = append(c.vm.calls, c.name("SetTSC"))
		case msrTSCDeadline:
			c.deadline = m.Data
			c.vm.calls = append(c.vm.calls, c.name("SetDeadline"))
		}
	}
	return c.vm.call("SetMSRs")
}

// writeTSC is what kvm_synchronize_tsc does.
func (c *fakeTimeCPU) writeTSC(v uint64) {
	f := c.vm
	expected := f.written + cycles(f.host-f.writtenAt, fakeKHz)
	if !far(v-expected, fakeKHz) {
		c.offset = f.offset
	} else {
		c.offset = v - f.tsc()
		f.offset = c.offset
	}
	f.written, f.writtenAt = v, f.host
}

// newFakeTime returns a machine with two vCPUs that has run for an hour.
func newFakeTime(change func(*fakeTimeCPU)) (*fakeTime, []*fakeTimeCPU, []timeCPU) {
	f := &fakeTime{host: 100 * 3600 * 1e9}
	f.ahead, f.offset = -f.host+3600e9, -f.tsc()+cycles(3600e9, fakeKHz)
	f.written, f.writtenAt = cycles(3600e9, fakeKHz), f.host
	var fakes []*fakeTimeCPU
	var cpus []timeCPU
	for id := range 2 {
		c := &fakeTimeCPU{vm: f, id: id, offset: f.offset}
		if change != nil {
			change(c)
		}
		fakes, cpus = append(fakes, c), append(cpus, c)
	}
	return f, fakes, cpus
}

// here runs f on the caller's thread, not a vCPU's.
func here(_ int, f func() error) error { return f() }

func freezeFake(t *testing.T, f *fakeTime, cpus []timeCPU) *guestTime {
	t.Helper()
	halts := make([]halted, len(cpus))
	for i, c := range cpus {
		var err error
		if halts[i], err = haltCPU(c); err != nil {
			t.Fatal(err)
		}
	}
	s, err := saveTime(f, cpus, halts, len(cpus)-1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	saved := new(guestTime)
	if err := json.Unmarshal(b, saved); err != nil || !reflect.DeepEqual(s, saved) {
		t.Errorf("what was saved is %s, %v", b, err)
	}
	return saved
}

// TestTimeElsewhere: a guest's saved time means the same on a host with another time.
func TestTimeElsewhere(t *testing.T) {
	f, fakes, cpus := newFakeTime(nil)
	fakes[0].setLVT(timerTSCDeadline, 0)
	fakes[0].deadline = 777
	f.pit.Channels[0] = kvm.PITChannel{Mode: pitRate, Count: 11932}
	clock, counter := f.host+f.ahead, fakes[1].counter()
	s := freezeFake(t, f, cpus)
	to, others, cpus := newFakeTime(func(c *fakeTimeCPU) { c.offset = 0 })
	to.host, to.ahead = 1e9, 0
	if err := s.restore(to, cpus, here); err != nil {
		t.Fatal(err)
	}
	if d := to.host + to.ahead - clock; d > uint64(time.Millisecond) {
		t.Errorf("kvmclock is off by %v", time.Duration(d))
	}
	if d := others[1].counter() - counter; d > fakeKHz {
		t.Errorf("the counter is off by %d", int64(d))
	}
	if others[0].deadline != 777 || to.pit.Channels[0] != f.pit.Channels[0] {
		t.Errorf("deadline %d, 8254 %+v", others[0].deadline, to.pit.Channels[0])
	}
}

// TestTimeHeld: each clock and counter continues from its own value, and they keep
// their distance, on every kind of KVM and for both short and long pauses.
func TestTimeHeld(t *testing.T) {
	for name, change := range map[string]func(*fakeTimeCPU){
		"offsets": nil,
		"writes":  func(c *fakeTimeCPU) { c.old = true },
		"apart":   func(c *fakeTimeCPU) { c.offset += uint64(c.id) * 12345 },
		"far":     func(c *fakeTimeCPU) { c.old, c.offset = true, c.offset+uint64(c.id)<<45 },
	} {
		for _, pause := range []time.Duration{0, 10 * time.Millisecond, time.Second, time.Hour, 1000 * time.Hour} {
			t.Run(fmt.Sprint(name, "/", pause), func(t *testing.T) {
				f, fakes, cpus := newFakeTime(change)
				clock := f.host + f.ahead
				distance := fakes[0].counter() - cycles(clock, fakeKHz)
				apart := fakes[1].offset - fakes[0].offset
				counter := fakes[0].counter()
				s := freezeFake(t, f, cpus)
				f.host += uint64(pause)
				if err := s.restore(f, cpus, here); err != nil {
					t.Fatal(err)
				}
				const most = uint64(100 * time.Microsecond) // for the calls themselves
				now := f.host + f.ahead
				if now < clock || now-clock > most {
					t.Errorf("kvmclock went on by %v", time.Duration(now-clock))
				}
				if d := fakes[0].counter() - counter; d > cycles(most, fakeKHz) {
					t.Errorf("the counter went on by %d", int64(d))
				}
				if d := int64(fakes[0].counter() - cycles(now, fakeKHz) - distance); d < -fakeKHz/1000 || d > fakeKHz/1000 {
					t.Errorf("counter and kvmclock are apart by %d cycles", d)
				}
				if d := int64(fakes[1].offset - fakes[0].offset - apart); d != 0 && (name != "far" || d > fakeKHz/100 || d < -fakeKHz/100) {
					t.Errorf("the counters have moved apart by %d", d)
				}
			})
		}
	}
}

// TestTimeLoose: where counters stop while their vCPUs are idle, they continue together,
// and none from before a value that any of them has shown.
func TestTimeLoose(t *testing.T) {
	f, fakes, cpus := newFakeTime(nil)
	for i, c := range fakes {
		c.left = c.counter() - uint64(2-i)*3*fakeKHz*1000 // idle for 6 s and for 3 s
		c.loose = true
	}
	latest := fakes[1].left
	s := freezeFake(t, f, cpus)
	f.host += 3600e9
	if err := s.restore(f, cpus, here); err != nil {
		t.Fatal(err)
	}
	for i, c := range fakes {
		if d := int64(c.left - latest); d < 0 || d > fakeKHz {
			t.Errorf("vCPU %d goes on %d cycles from where the last one was", i, d)
		}
	}
	if d := int64(fakes[1].left - fakes[0].left); d < -fakeKHz/10 || d > fakeKHz/10 {
		t.Errorf("the counters are apart by %d", d)
	}
}

// setLVT sets the timer registers of a local APIC.
func (c *fakeTimeCPU) setLVT(mode, current uint32) {
	binary.LittleEndian.PutUint32(c.lapic[apicLVTTimer:], mode|0xec)
	binary.LittleEndian.PutUint32(c.lapic[apicCurrentCount:], current)
}

// TestTimers: a timer keeps its remaining time, and an interrupt that arrived while
// the guest was paused is not lost.
func TestTimers(t *testing.T) {
	const oneShot, periodic, irr = 0, 1 << 17, 0x200
	for name, test := range map[string]struct {
		mode, current uint32
		deadline      uint64
		set           string // the call that starts the timer, if any
	}{
		"deadline":         {timerTSCDeadline, 0, 777, "SetDeadline 0"},
		"no deadline":      {timerTSCDeadline, 0, 0, ""},
		"one-shot":         {oneShot, 5000, 0, "SetLAPIC 0"},
		"one-shot, is out": {oneShot, 0, 0, ""},
		"periodic":         {periodic, 42, 0, "SetLAPIC 0"},
		"not set up":       {1 << 16, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, fakes, cpus := newFakeTime(nil)
			c := fakes[0]
			c.setLVT(test.mode, test.current)
			c.deadline = test.deadline
			s := freezeFake(t, f, cpus)
			// It expires, and a device interrupts.
			c.setLVT(test.mode, 0)
			c.deadline = 0
			c.lapic[irr] = 1
			f.host += 3600e9
			f.calls = nil
			if err := s.restore(f, cpus, here); err != nil {
				t.Fatal(err)
			}
			if test.set == "SetDeadline 0" && c.deadline != test.deadline || binary.LittleEndian.Uint32(c.lapic[apicCurrentCount:]) != test.current {
				t.Errorf("deadline %d, count %d", c.deadline, c.lapic[apicCurrentCount:][:4])
			}
			if c.lapic[irr] != 1 {
				t.Error("an interrupt is lost")
			}
			for _, call := range f.calls {
				if strings.HasPrefix(call, "SetLAPIC") || strings.HasPrefix(call, "SetDeadline") {
					if call != test.set {
						t.Errorf("%s, want %q", call, test.set)
					}
				}
			}
		})
	}
}

// TestTimeOrder: a deadline is a value of the vCPU's counter, so it is set after the
// counter. The counter is set after kvmclock, which tells how far it must advance.
func TestTimeOrder(t *testing.T) {
	f, fakes, cpus := newFakeTime(nil)
	for _, c := range fakes {
		c.setLVT(timerTSCDeadline, 0)
		c.deadline = 1
	}
	s := freezeFake(t, f, cpus)
	f.calls = nil
	if err := s.restore(f, cpus, here); err != nil {
		t.Fatal(err)
	}
	var sets []string
	for _, call := range f.calls {
		if strings.Contains(call, "Set") && call != "SetMSRs" || call == "KVMClockCtrl" {
			sets = append(sets, call)
		}
	}
	want := []string{"SetClock", "SetTSCOffset 0", "SetDeadline 0", "KVMClockCtrl", "SetTSCOffset 1", "SetDeadline 1", "KVMClockCtrl", "SetPIT"}
	if !slices.Equal(sets, want) {
		t.Errorf("%q, want %q", sets, want)
	}
}

// TestTimeRunsOn: a KVM that cannot hold every clock says so, and holds those it can.
func TestTimeRunsOn(t *testing.T) {
	f, fakes, cpus := newFakeTime(func(c *fakeTimeCPU) { c.fixed = true })
	fakes[0].setLVT(timerTSCDeadline, 0)
	fakes[0].deadline = 1
	clock := f.host + f.ahead
	s := freezeFake(t, f, cpus)
	f.host += 3600e9
	f.calls = nil
	if err := s.restore(f, cpus, here); !errors.Is(err, errTSC) {
		t.Errorf("restore: %v", err)
	}
	if now := f.host + f.ahead; now-clock > uint64(time.Millisecond) {
		t.Errorf("kvmclock went on by %v", time.Duration(now-clock))
	}
	if slices.Contains(f.calls, "SetDeadline 0") {
		t.Error("a deadline that the counter has passed is set again")
	}
	// Without kvmclock nothing may be held, or two clocks would disagree.
	f, _, cpus = newFakeTime(nil)
	f.broken = "SetClock"
	s = freezeFake(t, f, cpus)
	f.calls = nil
	// But the guest's watchdogs are told that it was stopped.
	if err := s.restore(f, cpus, here); err == nil || !slices.Equal(f.calls, []string{"SetClock", "KVMClockCtrl", "KVMClockCtrl"}) {
		t.Errorf("restore: %v, %q", err, f.calls)
	}
}

// busyTransport is a device that the host keeps busy for limit.
type busyTransport struct{ limit time.Duration }

func (busyTransport) Release()                  {}
func (busyTransport) Resume()                   {}
func (busyTransport) Close(time.Duration) error { return nil }
func (busyTransport) Stats() virtio.Stats       { return virtio.Stats{} }
func (b busyTransport) Pause(time.Duration) error {
	time.Sleep(b.limit)
	return errors.New("busy")
}

// TestTimeOfFailedPause: a failed pause takes no guest time either.
func TestTimeOfFailedPause(t *testing.T) {
	m, err := New(payloadConfig(t, payload.Spin()))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const long = time.Second
	m.devices.virtio = append(m.devices.virtio, busyTransport{long})
	began := time.Now()
	before, err := m.vm.Clock()
	if err != nil {
		t.Fatal(err)
	}
	go m.Run(t.Context())
	for errors.As(m.Pause(), new(*StateError)) { // until it runs
		time.Sleep(time.Millisecond)
	}
	after, err := m.vm.Clock()
	if err != nil {
		t.Fatal(err)
	}
	if held := time.Since(began) - time.Duration(after-before); held < long*9/10 {
		t.Errorf("time stood still for %v of %v", held, long)
	}
}

func TestPIT(t *testing.T) {
	const second = int64(time.Second)
	channel := func(mode uint8, count uint32, loaded int64) kvm.PITChannel {
		return kvm.PITChannel{Mode: mode, Count: count, CountLoadTime: loaded, Gate: 1}
	}
	for name, test := range map[string]struct {
		channel kvm.PITChannel
		left    uint32
		short   bool // must it be set after 1 ms?
		long    bool // after a second?
	}{
		"counts down":  {channel(0, 50000, 100*second-second/100), 50000 - 11931, true, true},
		"is through":   {channel(0, 1000, 99*second), 1, false, false},
		"is periodic":  {channel(3, 50000, 99*second), 50000, false, false}, // the speaker
		"never set up": {channel(0xff, 0x10000, 99*second), 0x10000, false, false},
	} {
		p := kvm.PIT{}
		p.Channels[0].Mode, p.Channels[2] = 0xff, test.channel
		p = remaining(p, time.Duration(100*second))
		if got := p.Channels[2].Count; got != test.left {
			t.Errorf("%s: %d left, want %d", name, got, test.left)
		}
		if short, long := pitRan(&p, time.Millisecond), pitRan(&p, time.Second); short != test.short || long != test.long {
			t.Errorf("%s: set after 1 ms %v, after 1 s %v", name, short, long)
		}
	}
	p := kvm.PIT{}
	p.Channels[0] = channel(2, pitHz/100, 0) // a tick of 10 ms
	if q := remaining(p, time.Duration(100*second)); q != p || pitRan(&p, 9*time.Millisecond) || !pitRan(&p, 11*time.Millisecond) {
		t.Errorf("the tick: %+v", q)
	}
}
