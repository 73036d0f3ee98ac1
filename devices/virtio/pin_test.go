package virtio_test

import (
	"encoding/binary"
	"sync"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/mem"
)

// wire is an interrupt line that records its level, and how often it rose.
type wire struct {
	mu    sync.Mutex
	high  bool
	rises int
}

func (w *wire) Set(high bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if high && !w.high {
		w.rises++
	}
	w.high = high
}

func (w *wire) get() (high bool, rises int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.high, w.rises
}

// onWire returns a device whose interrupt is a wire, and functions that read and write
// its registers.
func onWire(t *testing.T) (*virtio.MMIO, *virtiotest.Echo, *wire, func(off uint64) uint32, func(off uint64, v uint32)) {
	t.Helper()
	w, e := new(wire), virtiotest.NewEcho()
	d, err := virtio.NewMMIOLine(e, 0, w, virtio.Config{Mem: mem.New(mem.Region{Bytes: make([]byte, mem.PageSize)})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(virtiotest.Deadline); err != nil {
			t.Error(err)
		}
	})
	read := func(off uint64) uint32 {
		var p [4]byte
		d.Read(off, p[:])
		return binary.LittleEndian.Uint32(p[:])
	}
	return d, e, w, read, func(off uint64, v uint32) { d.Write(off, binary.LittleEndian.AppendUint32(nil, v)) }
}

const (
	interruptStatus = 0x60
	interruptACK    = 0x64
	status          = 0x70
)

// bringUp starts a device without queues, §3.1.1.
func bringUp(write func(off uint64, v uint32)) {
	for _, w := range [][2]uint32{{status, 0}, {status, 3}, {0x24, 1}, {0x20, 1}, {status, 11}, {status, 15}} {
		write(uint64(w[0]), w[1])
	}
}

// TestLine: the line is high while the interrupt status is not 0. It rises again for
// bits that an acknowledgement left set.
func TestLine(t *testing.T) {
	d, e, w, read, write := onWire(t)
	bringUp(write)
	broken := func() { write(0x30, 0); write(0x38, 3); write(0x44, 1) } // a split ring of size three
	for _, step := range []struct {
		name  string
		do    func()
		isr   uint32
		rises int
	}{
		{"nothing yet", func() {}, 0, 0},
		{"a change", func() { e.Host.ConfigChanged() }, 2, 1},
		{"another", func() { e.Host.ConfigChanged() }, 2, 1},
		{"what is not there is acknowledged", func() { write(interruptACK, 1) }, 2, 1},
		{"it is acknowledged", func() { write(interruptACK, 2) }, 0, 1},
		{"and again", func() { write(interruptACK, 3) }, 0, 1},
		{"a change", func() { e.Host.ConfigChanged() }, 2, 2},
		{"a pause", func() {
			d.Release()
			if err := d.Pause(virtiotest.Deadline); err != nil {
				t.Fatal(err)
			}
			d.Resume()
		}, 2, 2},
		{"a reset", func() { write(status, 0) }, 0, 2},
		{"a driver that breaks it", func() { bringUp(write); broken() }, 2, 3},
	} {
		step.do()
		high, rises := w.get()
		if isr := read(interruptStatus); isr != step.isr || high != (isr != 0) || rises != step.rises {
			t.Errorf("%s: status %d, want %d; the line is high: %v, rose %d times, want %d", step.name, isr, step.isr, high, rises, step.rises)
		}
	}
}

// TestLineLeft: the driver acknowledges one of two kinds of events.
func TestLineLeft(t *testing.T) {
	d, _, w, read, write := onWire(t)
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	state = append(state[:len(state)-1], `,"ISR":7}`...)
	if err := d.Load(state); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		ack, isr uint32
		rises    int
	}{{0, 3, 1}, {4, 3, 1}, {1, 2, 2}, {1, 2, 2}, {2, 0, 2}} {
		write(interruptACK, test.ack)
		high, rises := w.get()
		if isr := read(interruptStatus); isr != test.isr || high != (isr != 0) || rises != test.rises {
			t.Errorf("%d: status %d, the line is high: %v, rose %d times", i, isr, high, rises)
		}
	}
}

// TestLineRace: events come while the driver acknowledges. In any order, the line
// matches the status.
func TestLineRace(t *testing.T) {
	_, e, w, read, write := onWire(t)
	bringUp(write)
	for i := range 200 {
		var both sync.WaitGroup
		both.Go(func() { e.Host.ConfigChanged() })
		both.Go(func() { write(interruptACK, 3) })
		both.Wait()
		if high, _ := w.get(); high != (read(interruptStatus) != 0) {
			t.Fatalf("round %d: status %d, the line is high: %v", i, read(interruptStatus), high)
		}
	}
}
