package virtiotest

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/eventfd"
)

// null answers at once, on the queue's goroutine.
type null struct{}

func (null) ID() virtio.ID                   { return EchoID }
func (null) Features() uint64                { return 0 }
func (null) QueueSizes() []uint16            { return []uint16{256} }
func (null) ReadConfig(uint64, []byte)       {}
func (null) WriteConfig(uint64, []byte)      {}
func (null) Start(uint64, virtio.Host) error { return nil }
func (null) Stop()                           {}
func (null) Serve(_ int, q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		q.Push(c, 0)
	}
}

// BenchmarkRequest is a request through the core: kick, goroutine, Pop, Push,
// interrupt; one at a time, then 32.
func BenchmarkRequest(b *testing.B) {
	for _, bench := range []struct {
		name     string
		features uint64
		batch    int
	}{
		{"split/1", virtio.FeatureEventIdx, 1},
		{"packed/1", virtio.FeatureEventIdx | virtio.FeatureRingPacked, 1},
		{"split/32", virtio.FeatureEventIdx, 32},
		{"packed/32", virtio.FeatureEventIdx | virtio.FeatureRingPacked, 32},
	} {
		b.Run(bench.name, func(b *testing.B) {
			board := NewBoard(b, nil)
			defer board.Close()
			d := NewDriver(b, board, board.Add(MMIO, null{}), false)
			d.Start(Setup{Features: bench.features, Size: 256})
			q := d.Queues[0]
			bus, addr, value := d.access.notify(0)
			chain := []desc{{addr: lowBase, n: 64, flags: flagWrite}}
			signals := d.access.signals(0)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += bench.batch {
				q.ring.listen(uint16(bench.batch - 1))
				for range bench.batch {
					chain[0].flags = flagWrite
					q.ring.add(chain)
				}
				bus.Write(addr, value)
				for left := bench.batch; left > 0; {
					if _, _, ok := q.ring.used(); ok {
						left--
						continue
					}
					<-signals.c
				}
			}
		})
	}
}

// BenchmarkWake compares two ways to serve a queue: a goroutine on Go's poller, and a
// thread that blocks in read(2). The other side is a thread like a vCPU's: it blocks in
// the kernel until the answer comes, as it would for an interrupt.
func BenchmarkWake(b *testing.B) {
	b.Run("poller", func(b *testing.B) {
		kick, err := eventfd.New()
		if err != nil {
			b.Fatal(err)
		}
		vcpu(b, kick.Fd(), func(answer func()) {
			for kick.Wait() == nil {
				answer()
			}
		}, func() { kick.Stop() })
		kick.Close()
	})
	b.Run("thread", func(b *testing.B) {
		kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		vcpu(b, kick, func(answer func()) {
			runtime.LockOSThread() // the thread ends with the goroutine
			for read(kick) == 1 {
				answer()
			}
		}, func() { write(kick, 2) })
		unix.Close(kick)
	})
}

// vcpu makes serve answer b.N kicks.
func vcpu(b *testing.B, kick int, serve func(answer func()), stop func()) {
	irq, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(func() { write(irq, 1) })
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	for b.Loop() {
		write(kick, 1)
		read(irq)
	}
	stop()
	<-ended
	unix.Close(irq)
}

func write(fd int, n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	unix.Write(fd, b[:])
}

// read returns the count of a blocking eventfd.
func read(fd int) uint64 {
	var b [8]byte
	for {
		if _, err := unix.Read(fd, b[:]); err == nil {
			return binary.LittleEndian.Uint64(b[:])
		}
	}
}
