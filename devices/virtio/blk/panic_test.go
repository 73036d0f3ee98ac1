package blk

import (
	"testing"
	"time"

	"vmm/task"
)

// TestPanic: the owner of the device is told of a panic in one of its workers. The other
// workers end with the device.
func TestPanic(t *testing.T) {
	told := make(chan any, 1)
	image := newMemory(t, 1<<20)
	image.fail = func(string) error { panic("a bug") }
	dev, err := New(image, Config{Owner: func(p *task.PanicError) { told <- p.Value }})
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, dev, featureFlush)
	d.submit(0, ask{out: header(typeFlush, 0), room: 1})
	dev.Serve(0, d.q)
	select {
	case v := <-told:
		if v != "a bug" {
			t.Errorf("told %v", v)
		}
	case <-time.After(deadline):
		t.Fatal("nobody is told")
	}
	d.stopped = true // because its queue never drains
	d.q.Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		dev.Stop()
	}()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Error("its workers do not end")
	}
}
