package task

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmm/test/allow"
)

var patience = allow.Time(10 * time.Second)

var errOnPurpose = errors.New("on purpose")

func broken() { panic(errOnPurpose) }

// TestPanic: however a goroutine is started, its owner is told of a panic and its
// location.
func TestPanic(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, start := range map[string]func(o Owner){
		"Go":          func(o Owner) { o.Go(broken) },
		"AfterFunc":   func(o Owner) { o.AfterFunc(0, broken) },
		"ContextFunc": func(o Owner) { o.ContextFunc(ended, broken) },
		"Group": func(o Owner) {
			g := Group{Owner: o}
			g.Go(broken)
			g.Wait()
		},
		"Rescue": func(o Owner) {
			defer o.Rescue()
			broken()
		},
		"Each": func(o Owner) {
			o.Go(func() {
				Each(3, func(i int) {
					if i == 1 {
						broken()
					}
				})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan *PanicError, 2)
			start(func(p *PanicError) { told <- p })
			select {
			case p := <-told:
				if !errors.Is(p, errOnPurpose) || !strings.Contains(string(p.Stack), "task.broken") {
					t.Errorf("told %v", p)
				}
				if text := p.Error(); !strings.HasPrefix(text, "internal error: on purpose\n") {
					t.Errorf("says %q", text)
				}
			case <-time.After(patience):
				t.Fatal("nobody is told")
			}
		})
	}
}

// TestGroupOrder: when Wait on a group returns, the owner has been told.
func TestGroupOrder(t *testing.T) {
	for range 100 {
		told := false
		g := Group{Owner: func(*PanicError) { told = true }}
		g.Go(broken)
		g.Wait()
		if !told {
			t.Fatal("Wait was first")
		}
	}
}

// TestFault: a fault on memory that is gone is a panic like any other.
func TestFault(t *testing.T) {
	b, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mprotect(b, syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	var told *PanicError
	g := Group{Owner: func(p *PanicError) { told = p }}
	var sink byte
	g.Go(func() { sink = b[0] })
	g.Wait()
	if told == nil {
		t.Fatal("nobody is told", sink)
	}
}

// TestNobody: without an owner a panic is an ordinary Go panic.
func TestNobody(t *testing.T) {
	defer func() {
		if r := recover(); r != errOnPurpose {
			t.Errorf("recovered %v", r)
		}
	}()
	var o Owner
	o.run(broken)
}

// TestEach: every call is made and waited for.
func TestEach(t *testing.T) {
	var got [5]int
	Each(len(got), func(i int) { got[i] = i + 1 })
	if got != [5]int{1, 2, 3, 4, 5} {
		t.Error(got)
	}
	Each(0, func(int) { t.Error("called") })
}
