package virtio_test

import (
	"testing"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/devices/virtio/virtq"
	"vmm/task"
	"vmm/test/allow"
)

// faulty is an Echo that panics while it holds a request: on the queue's goroutine, or
// on one of its own.
type faulty struct {
	*virtiotest.Echo
	work   *task.Group
	worker bool
}

func (f faulty) Serve(_ int, q *virtq.Queue) {
	if q.Pop() == nil {
		return
	}
	if !f.worker {
		panic("in Serve")
	}
	f.work.Go(func() { panic("in a worker") })
}

func (f faulty) Stop() {
	f.work.Wait()
	f.Echo.Stop()
}

// TestPanic: the owner of the device is told of a panic on any of its goroutines. The
// request that is never answered does not keep the device from being closed.
func TestPanic(t *testing.T) {
	for _, worker := range []bool{false, true} {
		told, broken := make(chan *task.PanicError, 1), make(chan struct{})
		b := virtiotest.NewBoard(t, nil)
		b.Owner = func(p *task.PanicError) {
			told <- p
			close(broken)
		}
		b.Broken = broken
		var dev virtio.Device = faulty{virtiotest.NewEcho(), &task.Group{Owner: b.Owner}, worker}
		d := virtiotest.NewDriver(t, b, b.Add(virtiotest.MMIO, dev), false)
		d.Start(virtiotest.Setup{})
		q := d.Queues[0]
		q.Submit(virtiotest.EchoTarget().Request(0, 1))
		q.Kick()
		select {
		case p := <-told:
			if (p.Value == "in a worker") != worker {
				t.Errorf("told %v", p.Value)
			}
		case <-time.After(allow.Time(10 * time.Second)):
			t.Fatal("nobody is told")
		}
		b.Close() // within a limit
	}
}
