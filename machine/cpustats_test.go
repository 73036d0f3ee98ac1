package machine

import (
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/kvm"
	"vmm/test/allow"
)

func TestCountExits(t *testing.T) {
	s := cpuStats{id: 3, tracing: new(atomic.Pointer[trace])}
	for _, r := range []kvm.Reason{kvm.ExitIO, kvm.ExitIO, kvm.ExitMMIO, 1000, 5000} {
		s.count(kvm.Exit{Reason: r})
	}
	got := s.load().Exits
	if len(got) != 3 || got["I/O"] != 2 || got["MMIO"] != 1 || got["exit reason 39"] != 2 {
		t.Errorf("%v", got)
	}
	e := kvm.Exit{Reason: kvm.ExitIO, Size: 2, Write: true, Data: []byte{1, 2}}
	if n := testing.AllocsPerRun(100, func() { s.count(e) }); n != 0 {
		t.Errorf("%v allocations an exit", n)
	}
}

// TestTrace: events that do not fit are counted, and the vCPU does not wait.
func TestTrace(t *testing.T) {
	m := &Machine{}
	s := cpuStats{id: 3, tracing: &m.tracing}
	exits, stop, err := m.Trace()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Trace(); err == nil {
		t.Error("two traces at once")
	}
	s.count(kvm.Exit{Reason: kvm.ExitIO, Addr: 0x3f8, Size: 1, Write: true, Data: []byte{'a', 'b', 'c'}})
	x := <-exits
	x.Time = time.Time{}
	if want := (Exit{CPU: 3, Reason: "I/O", Addr: 0x3f8, Size: 1, Count: 3, Write: true, Data: 'a'}); x != want {
		t.Errorf("%+v, want %+v", x, want)
	}
	s.count(kvm.Exit{Reason: kvm.ExitMMIO, Addr: 4, Size: 4, Data: []byte{0, 0, 0, 0}})
	if x = <-exits; x.Data != 0 || x.Write || x.Size != 4 {
		t.Errorf("a read: %+v", x)
	}
	for range traceRoom + 5 {
		s.count(kvm.Exit{Reason: kvm.ExitHLT})
	}
	for range traceRoom {
		if x = <-exits; x.Lost != 0 {
			t.Fatalf("lost %d before there was no room", x.Lost)
		}
	}
	s.count(kvm.Exit{Reason: kvm.ExitHLT})
	if x = <-exits; x.Lost != 5 {
		t.Errorf("lost %d, want 5", x.Lost)
	}
	stop()
	s.count(kvm.Exit{Reason: kvm.ExitHLT})
	if _, stop, err = m.Trace(); err != nil || len(exits) > 0 {
		t.Errorf("after its end: %v, and %d exits", err, len(exits))
	}
	stop()
}

func TestParseTimes(t *testing.T) {
	const stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 50 8 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 0"
	if guest, host := parseTimes(stat); guest != 400*time.Millisecond || host != 180*time.Millisecond {
		t.Errorf("%v, %v", guest, host)
	}
	for _, bad := range []string{"", "7", "7 (a) S 1", stat[:len(stat)-6]} {
		if guest, host := parseTimes(bad); guest != 0 || host != 0 {
			t.Errorf("%q: %v, %v", bad, guest, host)
		}
	}
}

// TestThreadTimes: this thread has used processor time outside any guest. Its
// times are still known after it is gone.
func TestThreadTimes(t *testing.T) {
	s := cpuStats{tracing: new(atomic.Pointer[trace])}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		s.thread.Store(int32(unix.Gettid()))
		defer s.leave()
		for end := time.Now().Add(allow.Time(10 * time.Second)); s.load().Host == 0 && time.Now().Before(end); {
			slices.Sort(make([]int, 1000))
		}
	}()
	<-done
	if c := s.load(); c.Host == 0 || c.Guest != 0 {
		t.Errorf("%+v", c)
	}
}

func TestResident(t *testing.T) {
	if n := resident("/proc/self/statm"); n < 1<<20 || n > 1<<40 {
		t.Errorf("%d bytes", n)
	}
	if n := resident(os.DevNull); n != 0 {
		t.Errorf("of nothing: %d", n)
	}
}

func BenchmarkCount(b *testing.B) {
	s := cpuStats{tracing: new(atomic.Pointer[trace])}
	e := kvm.Exit{Reason: kvm.ExitIO, Size: 1, Data: []byte{0}}
	for b.Loop() {
		s.count(e)
	}
}
