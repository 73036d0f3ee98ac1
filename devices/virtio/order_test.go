package virtio

import (
	"runtime"
	"testing"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
	"vmm/test/allow"
)

// null has two queues and does nothing.
type null struct{}

func (null) ID() ID                     { return 63 }
func (null) Features() uint64           { return 0 }
func (null) QueueSizes() []uint16       { return []uint16{8, 8} }
func (null) ReadConfig(uint64, []byte)  {}
func (null) WriteConfig(uint64, []byte) {}
func (null) Start(uint64, Host) error   { return nil }
func (null) Stop()                      {}
func (null) Serve(_ int, q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		q.Push(c, 0)
	}
}

type nowhere struct{}

func (nowhere) Signal() {}

func newNull(t *testing.T) *MMIO {
	t.Helper()
	return newMMIO(t, null{})
}

func newMMIO(t *testing.T, dev Device) *MMIO {
	t.Helper()
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 0x10000)})
	d, err := NewMMIO(dev, 0, nowhere{}, Config{Mem: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Release()
		if err := d.Close(deadline); err != nil {
			t.Error(err)
		}
	})
	return d
}

var deadline = allow.Time(5 * time.Second)

// set writes registers, in pairs of offset and value. It does not wait for the
// operations that they begin.
func (t *MMIO) set(pairs ...uint32) (last <-chan struct{}) {
	for i := 0; i < len(pairs); i += 2 {
		last = t.write(uint64(pairs[i]), pairs[i+1])
	}
	return last
}

// up brings the device to DRIVER_OK.
func (t *MMIO) up() {
	t.set(mmioStatus, 3, mmioDriverFeaturesSel, 1, mmioDriverFeatures, FeatureVersion1>>32|FeatureRingReset>>32, mmioStatus, 11)
	for q := range uint32(2) {
		t.enable(q)
	}
	t.set(mmioStatus, 15)
}

func (t *MMIO) enable(q uint32) {
	base := 0x1000 * (q + 1)
	t.set(mmioQueueSel, q, mmioQueueNum, 8, mmioQueueDescLow, base, mmioQueueDriverLow, base+0x400, mmioQueueDeviceLow, base+0x800, mmioQueueReady, 1)
}

func (t *MMIO) get(off uint64) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read(off)
}

func ended(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	if c == nil {
		return
	}
	select {
	case <-c:
	case <-time.After(deadline):
		t.Fatalf("timeout: %s", what)
	}
}

// TestPauseEndsReset: a reset that the driver began before Pause is complete in the
// saved state, whichever of the two is first.
func TestPauseEndsReset(t *testing.T) {
	for range 50 {
		d := newNull(t)
		d.up()
		d.ops.Lock()
		done := d.set(mmioStatus, 0)
		paused := make(chan error, 1)
		go func() { paused <- d.Pause(deadline) }()
		d.ops.Unlock()
		if err := <-paused; err != nil {
			t.Fatal(err)
		}
		if got := d.get(mmioStatus); got != 0 {
			t.Fatalf("status %#x of a paused device that was being reset", got)
		}
		ended(t, "reset", done)
		d.Resume()
	}
	for range 50 {
		d := newNull(t)
		d.up()
		d.ops.Lock()
		done := d.set(mmioQueueSel, 1, mmioQueueReset, 1)
		paused := make(chan error, 1)
		go func() { paused <- d.Pause(deadline) }()
		d.ops.Unlock()
		if err := <-paused; err != nil {
			t.Fatal(err)
		}
		if d.get(mmioQueueReady) != 0 || d.get(mmioQueueReset) != 0 || d.get(mmioStatus) != 15 {
			t.Fatal("a paused queue that was being reset is not")
		}
		ended(t, "queue_reset", done)
		d.Resume()
	}
}

// TestLateRingReset: a queue reset whose turn comes after a device reset does not
// affect what the driver has set up since.
func TestLateRingReset(t *testing.T) {
	for range 100 {
		d := newNull(t)
		d.up()
		d.ops.Lock()
		queue := d.set(mmioQueueSel, 1, mmioQueueReset, 1)
		device := d.set(mmioStatus, 0)
		go func() {
			<-device
			d.up()
		}()
		d.ops.Unlock()
		ended(t, "reset", device)
		ended(t, "queue_reset", queue)
		for end := time.Now().Add(deadline); d.get(mmioStatus) != 15; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("timeout: DRIVER_OK")
			}
		}
		d.set(mmioQueueSel, 1)
		if d.get(mmioQueueReady) != 1 {
			t.Fatal("a late queue_reset undoes the new driver's work")
		}
	}
}

// TestResumeOvertakesPause: a Pause that failed before its turn came does not stop a
// device that was resumed. A late Resume does not start a device that is paused again.
func TestResumeOvertakesPause(t *testing.T) {
	for range 20 {
		idle := runtime.NumGoroutine()
		d := newNull(t)
		d.up()
		d.ops.Lock()
		for range 3 {
			if err := d.Pause(time.Microsecond); err == nil {
				t.Fatal("paused while another operation is under way")
			}
			d.Resume()
		}
		d.ops.Unlock()
		if err := d.Pause(deadline); err != nil {
			t.Fatal(err)
		}
		settle(t, idle)
		if d.serving() {
			t.Fatal("a late Resume has started a paused device")
		}
		d.Resume()
		settle(t, idle+2)
		if !d.serving() {
			t.Fatal("a late Pause has stopped a resumed device")
		}
	}
}

// slow is a null whose Stop takes a while.
type slow struct {
	null
	stops chan chan struct{} // Stop sends a channel, and waits until it is closed
}

func (s slow) Stop() {
	c := make(chan struct{})
	s.stops <- c
	<-c
}

// TestEnableWhileStopping: after a failed Pause the guest continues while the device
// still stops. A queue that it enables meanwhile is served afterwards.
func TestEnableWhileStopping(t *testing.T) {
	s := slow{stops: make(chan chan struct{})}
	d := newMMIO(t, s)
	d.up()
	ended(t, "queue_reset", d.set(mmioQueueSel, 1, mmioQueueReset, 1))
	if d.Pause(time.Microsecond) == nil {
		t.Fatal("paused before Stop has returned")
	}
	c := <-s.stops
	d.Resume()
	d.enable(1)
	d.mu.Lock()
	if d.runs[1] != nil {
		t.Error("a queue of a device that stops is served")
	}
	d.mu.Unlock()
	close(c)
	for end := time.Now().Add(deadline); !d.serving(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("timeout: the device does not serve all queues")
		}
	}
	go func() { close(<-s.stops) }() // the Stop of Close
}

// settle waits until at most n goroutines run: all that waited for ops have had their
// turn.
func settle(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(deadline); runtime.NumGoroutine() > n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("timeout: %d goroutines, want %d", runtime.NumGoroutine(), n)
		}
	}
}

func (t *MMIO) serving() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.alive && t.runs[0] != nil && t.runs[1] != nil
}

// TestLoadRefuses: Load refuses bad states, and features that were not offered.
func TestLoadRefuses(t *testing.T) {
	for _, state := range []string{
		``, `{}`, `[]`, `{"Core":{}}`, `{"Core":{"Registers":{"Queues":[{"Size":8}]}}}`,
		`{"Core":{"Registers":{"Queues":[{"Size":16},{"Size":8}]}}}`,
		`{"Core":{"Registers":{"Status":15,"DriverFeatures":1,"Queues":[{"Size":8},{"Size":8}]}}}`,
		`{"Core":{"Registers":{"Status":4,"DriverFeatures":1,"Queues":[{"Size":8},{"Size":8}]}}}`,
		`{"Core":{"Registers":{"Status":8,"DriverFeatures":0,"Queues":[{"Size":8},{"Size":8}]}}}`,
		`{"Core":{"Registers":{"Status":8,"BadFeatures":true,"DriverFeatures":4294967296,"Queues":[{"Size":8},{"Size":8}]}}}`,
	} {
		if newNull(t).Load([]byte(state)) == nil {
			t.Errorf("loaded %s", state)
		}
	}
	d := newNull(t)
	if err := d.Load([]byte(`{"Core":{"Registers":{"Status":15,"DriverFeatures":4294967296,"Queues":[{"Size":8,"Enabled":true,"Desc":1},{"Size":0,"Enabled":true}]}}}`)); err != nil {
		t.Fatal(err)
	}
	d.Resume()
	if d.get(mmioStatus)&StatusNeedsReset == 0 {
		t.Error("queues that cannot be are served")
	}
}
