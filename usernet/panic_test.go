package usernet

import (
	"testing"

	"vmm/ethernet"
	"vmm/task"
)

// buggy is a card that panics when frames arrive.
type buggy struct{ ethernet.Guest }

func (buggy) Readable(int) bool { panic("a bug") }

// TestPanic: the network's owner is told of a panic on one of its goroutines, and the
// network still closes.
func TestPanic(t *testing.T) {
	told := make(chan any, 1)
	n, err := New(Config{Owner: func(p *task.PanicError) { told <- p.Value }})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(buggy{}); err != nil {
		t.Fatal(err)
	}
	n.advertise()
	if v := receive(t, "the owner", told); v != "a bug" {
		t.Errorf("told %v", v)
	}
	closed := make(chan error, 1)
	go func() {
		n.Stop()
		closed <- n.Close()
	}()
	if err := receive(t, "the end", closed); err != nil {
		t.Error(err)
	}
}
