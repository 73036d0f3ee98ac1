package rng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

var _ virtio.Device = (*Device)(nil)

var le = binary.LittleEndian

const descAt, availAt, usedAt, dataAt, ramSize = 0x1000, 0x2000, 0x3000, 0x10000, 1 << 20

// A driver drives the device's queue, as a guest would.
type driver struct {
	t     testing.TB
	dev   *Device
	ram   []byte
	m     *mem.Memory
	q     *virtq.Queue
	wakes chan struct{}

	avail, used uint16
}

func (d *driver) Wake(int) {
	select {
	case d.wakes <- struct{}{}:
	default:
	}
}
func (*driver) ConfigChanged() {}

func start(t testing.TB, dev *Device) *driver {
	t.Helper()
	d := &driver{t: t, dev: dev, ram: make([]byte, ramSize), wakes: make(chan struct{}, 1)}
	d.m = mem.New(mem.Region{Bytes: d.ram})
	var err error
	l := virtq.Layout{Size: queueSize, Desc: descAt, Driver: availAt, Device: usedAt}
	if d.q, err = virtq.New(d.m, l, virtq.Format{}, virtq.State{}, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(0, d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.q.Stop()
		<-d.q.Drained()
		dev.Stop()
	})
	return d
}

// submit makes a chain of writable buffers of these lengths available, all at dataAt.
func (d *driver) submit(lengths ...int) {
	head := int(d.avail) % 4 * 16
	for i, n := range lengths {
		e := d.ram[descAt+16*(head+i):]
		le.PutUint64(e, dataAt)
		le.PutUint32(e[8:], uint32(n))
		le.PutUint16(e[12:], 2|1)
		le.PutUint16(e[14:], uint16(head+i+1))
		if i == len(lengths)-1 {
			le.PutUint16(e[12:], 2)
		}
	}
	le.PutUint16(d.ram[availAt+4+2*int(d.avail%queueSize):], uint16(head))
	d.avail++
	idx, _ := d.m.U16(availAt + 2)
	idx.Store(d.avail)
}

// next returns the used length of the next chain, or false.
func (d *driver) next() (n uint32, ok bool) {
	idx, _ := d.m.U16(usedAt + 2)
	if idx.Load() == d.used {
		return 0, false
	}
	n = le.Uint32(d.ram[usedAt+8+8*int(d.used%queueSize):])
	d.used++
	return n, true
}

func (d *driver) do(lengths ...int) uint32 {
	d.t.Helper()
	d.submit(lengths...)
	d.dev.Serve(0, d.q)
	n, ok := d.next()
	if !ok {
		d.t.Fatal("no answer")
	}
	return n
}

// counter gives 1, 2, 3 and so on, and fails after most bytes.
type counter struct{ given, most int }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		if c.given == c.most {
			return i, io.ErrUnexpectedEOF
		}
		c.given++
		p[i] = byte(c.given)
	}
	return len(p), nil
}

func TestRequests(t *testing.T) {
	for _, test := range []struct {
		lengths []int
		want    uint32
	}{
		{[]int{1}, 1}, {[]int{64}, 64}, {[]int{10, 20, 30}, 60}, {[]int{maxRequest}, maxRequest},
		{[]int{maxRequest + 1}, maxRequest}, {[]int{maxRequest, maxRequest}, maxRequest},
		{[]int{512 << 10, 512 << 10, 512 << 10}, maxRequest}, // more than the RAM, by overlap
		{[]int{0}, 0},
	} {
		c := &counter{most: 1 << 30}
		d := start(t, New(c, 0))
		if n := d.do(test.lengths...); n != test.want || c.given != int(test.want) {
			t.Errorf("%v: used %d, taken %d, want %d", test.lengths, n, c.given, test.want)
		}
	}
}

func TestBytes(t *testing.T) {
	d := start(t, New(&counter{most: 1 << 30}, 0))
	d.do(5)
	if got := d.ram[dataAt:][:6]; !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 0}) {
		t.Errorf("%x", got)
	}
	k := start(t, New(nil, 0))
	k.do(64)
	first := bytes.Clone(k.ram[dataAt:][:64])
	k.do(64)
	if second := k.ram[dataAt:][:64]; bytes.Equal(first, second) || bytes.Equal(second, make([]byte, 64)) {
		t.Error("the host's kernel gives no random bytes")
	}
}

func TestSourceFails(t *testing.T) {
	d := start(t, New(&counter{most: 30}, 0))
	for _, want := range []uint32{20, 10, 0, 0} {
		if n := d.do(20); n != want {
			t.Errorf("used %d, want %d", n, want)
		}
	}
	if d := start(t, New(failing{}, 0)); d.do(20) != 0 {
		t.Error("bytes of a source that has none")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("none") }

// TestRate: a guest gets its rate and no more, whether it waits, keeps asking or resets
// the device.
func TestRate(t *testing.T) {
	for _, reset := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dev := New(&counter{most: 1 << 30}, 1000)
			d := start(t, dev)
			begin, got := time.Now(), 0
			for got < 5000 {
				d.submit(64)
				dev.Serve(0, d.q)
				n, ok := d.next()
				for !ok {
					if reset {
						dev.Stop()
						dev.Start(0, d)
						time.Sleep(10 * time.Millisecond) // of the test's clock
					} else {
						<-d.wakes
					}
					dev.Serve(0, d.q)
					n, ok = d.next()
				}
				if n == 0 || n > 64 {
					t.Fatalf("used %d", n)
				}
				got += int(n)
			}
			if took := time.Since(begin); took < 4800*time.Millisecond || took > 5100*time.Millisecond {
				t.Errorf("reset %v: %d bytes in %v", reset, got, took)
			}
		})
	}
}

// TestStopped: a stopped device does not call Wake.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := New(&counter{most: 1 << 30}, 10)
		d := start(t, dev)
		d.do(64)
		d.submit(64)
		dev.Serve(0, d.q)
		if _, ok := d.next(); ok {
			t.Error("more than the rate")
		}
		dev.Stop()
		time.Sleep(time.Hour) // of the test's clock
		select {
		case <-d.wakes:
			t.Error("woken")
		default:
		}
	})
}

func TestIdentity(t *testing.T) {
	d := New(nil, 0)
	p := []byte{0, 0}
	d.ReadConfig(0, p)
	d.WriteConfig(0, p)
	if d.ID() != 4 || d.Features() != 0 || len(d.QueueSizes()) != 1 || !bytes.Equal(p, []byte{0, 0}) {
		t.Error("not an entropy device")
	}
}

func TestNoAllocation(t *testing.T) {
	for _, rate := range []int{0, 1 << 30} {
		d := start(t, New(nil, rate))
		d.do(64)
		if n := testing.AllocsPerRun(100, func() { d.do(64) }); n != 0 {
			t.Errorf("%v allocations a request", n)
		}
	}
}

// BenchmarkRequest requests 64 bytes from the host's kernel.
func BenchmarkRequest(b *testing.B) {
	d := start(b, New(nil, 0))
	b.ReportAllocs()
	for b.Loop() {
		d.do(64)
	}
}

// TestLog: a source that fails causes a line in the device's log.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	dev := New(failing{}, 0)
	dev.Log = slog.New(slog.NewTextHandler(&log, nil))
	for range 3 {
		d := start(t, dev)
		d.do(20)
		d.do(20)
		dev.Stop()
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "err=none") {
		t.Errorf("%d lines: %s", n, &log)
	}
}
