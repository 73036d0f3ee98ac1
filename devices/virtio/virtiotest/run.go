package virtiotest

import (
	"fmt"
	"runtime"
	"testing"

	"vmm/devices/virtio"
)

// Run checks that a device passes the suite, as subtests of t.
func Run(t *testing.T, target Target) {
	cases := 0
	for _, kind := range kinds {
		for _, packed := range []bool{false, true} {
			name := "split"
			if packed {
				name = "packed"
			}
			t.Run(fmt.Sprintf("%v/%s", kind, name), func(t *testing.T) {
				s := newSuite(t, target, kind, packed)
				for _, c := range checks {
					s.run(t, c)
				}
				for _, table := range tables {
					s.runTable(t, table)
				}
				s.close(t)
				cases += s.cases
			})
		}
	}
	t.Logf("%d hostile cases in all", cases)
}

// A check is a part of the suite. The device is reset before it, and may be in any
// state after it.
type check struct {
	name string
	do   func(*suite)
}

var checks = concat(basicChecks, featureChecks, resetChecks, ringResetChecks, pauseChecks, interruptChecks, masterChecks)

func concat(lists ...[]check) (all []check) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// A suite is a board with a device under test, and a bystander that must not be
// affected.
type suite struct {
	testing.TB // of the running subtest
	target     Target
	kind       Kind
	packed     bool
	board      *Board
	d          *Driver
	other      *Driver // the bystander's
	echo       *Echo   // the bystander
	made       []virtio.Device
	requests   int // number of the next request
	goroutines int // with the device reset
	cases      int
	note       string // the running case
}

func newSuite(t *testing.T, target Target, kind Kind, packed bool) *suite {
	s := &suite{TB: t, target: target, kind: kind, packed: packed}
	s.board = NewBoard(t, nil)
	s.d = NewDriver(t, s.board, s.board.Add(kind, s.device()), false)
	s.addBystander(s.board)
	s.other = NewDriver(t, s.board, s.board.Slots[1], true)
	s.other.Start(Setup{Features: s.ringFeature(), Size: 8})
	s.bystander()
	s.goroutines = runtime.NumGoroutine() + 1 // the goroutine of a subtest
	return s
}

func (s *suite) device() virtio.Device {
	dev := s.target.New(s)
	s.made = append(s.made, dev)
	return dev
}

func (s *suite) addBystander(b *Board) {
	s.echo = NewEcho()
	b.Add(s.kind, s.echo)
}

func (s *suite) ringFeature() uint64 {
	if s.packed {
		return virtio.FeatureRingPacked
	}
	return 0
}

// setup is the ordinary way to use the device.
func (s *suite) setup() Setup { return s.setupWith(0) }

func (s *suite) setupWith(features uint64) Setup {
	return Setup{Features: s.ringFeature() | s.d.Slot.Device.Features() | features, Size: 16}
}

// bind makes all failures fail t.
func (s *suite) bind(t testing.TB) {
	s.TB, s.board.tb, s.d.tb, s.other.tb = t, t, t, t
}

// run runs one check, and checks that the device works afterwards.
func (s *suite) run(t *testing.T, c check) {
	parent := s.TB
	ok := t.Run(c.name, func(t *testing.T) {
		s.bind(t)
		c.do(s)
		s.settle()
		s.works()
	})
	s.bind(parent)
	if !ok {
		t.FailNow() // what follows would only repeat the failure
	}
}

// settle resets the device: then nothing of it may remain.
func (s *suite) settle() {
	s.Helper()
	s.d.reset()
	s.isReset()
	until(s, "the end of goroutines", func() bool { return runtime.NumGoroutine() <= s.goroutines })
}

// works checks that the device and the bystander answer, then resets the device.
func (s *suite) works() {
	s.Helper()
	s.d.Start(s.setup())
	s.answers(2)
	s.bystander()
	s.d.reset()
}

// guard copies RAM, except what is in given and the queues' areas.
func (s *suite) guard(given []span) *guard {
	for _, q := range append(s.d.Queues[:len(s.d.Queues):len(s.d.Queues)], s.other.Queues...) {
		given = append(given, q.ring.device()...)
	}
	return s.board.guard(given)
}

// request returns a fresh request for a queue.
func (s *suite) request(queue int) Request {
	s.requests++
	return s.target.Request(queue, s.requests)
}

// driven returns the queues that answer without host activity.
func (s *suite) driven() (list []*Queue) {
	for _, q := range s.d.Queues {
		if s.target.Request(q.index, 0).Check != nil {
			list = append(list, q)
		}
	}
	return list
}

// answers checks that every queue answers n requests, one after the other.
func (s *suite) answers(n int) {
	s.Helper()
	for _, q := range s.driven() {
		for range n {
			t := q.Submit(s.request(q.index))
			q.Kick()
			q.Wait(t)
		}
	}
}

// bystander checks that the bystander answers.
func (s *suite) bystander() {
	s.Helper()
	q := s.other.Queues[0]
	t := q.Submit(echoRequest(0, s.requests))
	q.Kick()
	q.Wait(t)
	if what := s.echo.Bad.Load(); what != nil {
		s.Error(*what)
	}
}

func (s *suite) close(t *testing.T) {
	s.bind(t)
	s.board.Close()
	if s.target.Done != nil {
		for _, dev := range s.made {
			s.target.Done(t, dev)
		}
	}
}

// isReset checks that all registers are those of a reset device.
func (s *suite) isReset() {
	s.Helper()
	d := s.d
	for r, want := range map[Register]uint32{
		Status: 0, DeviceFeatureSelect: 0, DriverFeatureSelect: 0, DriverFeature: 0, QueueSelect: 0, ISR: 0,
	} {
		if got := d.Get(r); got != want {
			s.Errorf("register %d of the reset device is %#x, want %#x", r, got, want)
		}
	}
	if s.kind != MMIO {
		if got := d.Get(ConfigVector); got != noVector {
			s.Errorf("config vector %#x of the reset device", got)
		}
		if d.Slot.Line.High() && s.kind == INTx && !s.other.Slot.Line.High() {
			s.Error("the line of the reset device is high")
		}
	}
	for i := range d.Sizes {
		s.queueIsReset(i)
	}
	d.Set(QueueSelect, 0)
}

// queueIsReset is isReset for one queue, and leaves it selected.
func (s *suite) queueIsReset(i int) {
	s.Helper()
	d := s.d
	d.Set(QueueSelect, uint32(i))
	want := map[Register]uint32{QueueEnable: 0, QueueReset: 0}
	if s.kind == MMIO {
		want[QueueSizeMax] = uint32(d.Sizes[i])
	} else {
		want[QueueSize], want[QueueVector] = uint32(d.Sizes[i]), noVector
		for r := QueueDesc; r <= QueueDeviceHigh; r++ {
			want[r] = 0
		}
	}
	for r, v := range want {
		if got := d.Get(r); got != v {
			s.Errorf("register %d of the reset queue %d is %#x, want %#x", r, i, got, v)
		}
	}
}

// hold makes requests wait in the device, or skips the test.
func (s *suite) hold() (release func()) {
	if s.target.Hold == nil {
		s.Skip("the device cannot be slow")
	}
	release = s.target.Hold(s.d.Slot.Device)
	s.Cleanup(release)
	return release
}

// stuck leaves a request of a running driver in the device. It waits for the host
// until release is called. Its queue is selected.
func (s *suite) stuck() (q *Queue, release func()) {
	release = s.hold()
	q = s.driven()[0]
	q.Submit(s.request(q.index))
	q.Notify()
	until(s, "a request in the device", func() bool { return s.target.Busy(s.d.Slot.Device) == 1 })
	s.d.Set(QueueSelect, uint32(q.index))
	return q, release
}

// echoRequest implements Target.Request for an Echo.
func echoRequest(queue, i int) Request {
	out := make([]byte, 1+(i*37+queue)%200)
	for k := range out {
		out[k] = byte(i + k*3 + queue)
	}
	return Request{Out: out, In: len(out) + 3, Check: func(in []byte, n uint32) error {
		if int(n) != len(out) || string(in[:n]) != string(out) {
			return fmt.Errorf("the echo of %x is %x", out, in[:n])
		}
		for _, v := range in[n:] {
			if v != untouched {
				return fmt.Errorf("%x follows the echo", in[n:])
			}
		}
		return nil
	}}
}

// EchoTarget is the target for an Echo.
func EchoTarget() Target {
	return Target{
		New:      func(testing.TB) virtio.Device { return NewEcho() },
		Request:  echoRequest,
		Config:   make([]byte, 8),
		Writable: []byte{255, 255, 255, 255, 255, 255, 255, 255},
		Hold:     func(d virtio.Device) func() { return d.(*Echo).Hold() },
		Busy:     func(d virtio.Device) int { return d.(*Echo).Busy() },
		Done: func(tb testing.TB, d virtio.Device) {
			if what := d.(*Echo).Bad.Load(); what != nil {
				tb.Error(*what)
			}
		},
	}
}
