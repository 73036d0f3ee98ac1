package balloon

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// entries puts statistics into the guest's memory.
func (d *driver) entries(list ...uint64) desc {
	d.t.Helper()
	var b []byte
	for i := 0; i < len(list); i += 2 {
		b = le.AppendUint64(le.AppendUint16(b, uint16(list[i])), list[i+1])
	}
	copy(d.bytes(dataAt, uint64(len(b))), b)
	return desc{addr: dataAt, n: uint32(len(b))}
}

// TestStats: the first statistics come unasked, others when it is time.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(t, all)
		serve := func(want int) {
			t.Helper()
			d.dev.Serve(queueStats, d.q[queueStats])
			if n := d.answered(queueStats); n != want {
				t.Fatalf("%d buffers used, want %d", n, want)
			}
		}
		shows := func(age time.Duration, want map[string]uint64) {
			t.Helper()
			s := d.dev.Stats()
			if !maps.Equal(s.Guest, want) || want != nil && time.Since(s.Time) != age {
				t.Fatalf("%v, %v old, want %v, %v old", s.Guest, time.Since(s.Time), want, age)
			}
		}
		serve(0)
		shows(0, nil)
		d.submit(queueStats, d.entries(4, 1000, 5, 1<<40, 99, 7))
		serve(0)
		first := map[string]uint64{"free-memory": 1000, "total-memory": 1 << 40}
		shows(0, first)

		time.Sleep(time.Minute) // of the test's clock
		d.entries(4, 2000)      // the guest may do this, and it changes nothing
		serve(0)
		shows(time.Minute, first)

		d.dev.PollStats(10 * time.Second)
		if queue := <-d.wakes; queue != queueStats {
			t.Fatalf("queue %d was woken", queue)
		}
		serve(1)
		shows(time.Minute+10*time.Second, first)
		time.Sleep(time.Second)
		d.submit(queueStats, d.entries(0, 1, 1, 2, 2, 3, 3, 4, 6, 5, 7, 6, 8, 7, 9, 8))
		serve(0)
		shows(0, map[string]uint64{
			"swap-in": 1, "swap-out": 2, "major-faults": 3, "minor-faults": 4, "available-memory": 5,
			"disk-caches": 6, "hugetlb-allocations": 7, "hugetlb-failures": 8,
		})

		d.stop() // as for a pause: they are asked for again afterwards
		time.Sleep(time.Minute)
		if len(d.wakes) != 0 {
			t.Fatal("a stopped balloon wakes its queue")
		}
		d.run(all)
		<-d.wakes
		d.dev.PollStats(0)
		time.Sleep(time.Hour)
		if len(d.wakes) != 0 {
			t.Fatal("asked without end")
		}
		d.dev.Reset()
		shows(0, nil)
	})
}

// TestStatsBad: invalid entries are ignored.
func TestStatsBad(t *testing.T) {
	for _, test := range []struct {
		name string
		n    uint32
		want map[string]uint64
	}{
		{"nothing", 0, map[string]uint64{}},
		{"half an entry", 9, map[string]uint64{}},
		{"one and a half", 15, map[string]uint64{"free-memory": 3}},
		{"one more than is looked at", statsBound*statSize + statSize, map[string]uint64{"free-memory": 3, "major-faults": 0}},
	} {
		d := start(t, all)
		list := []uint64{4, 3}
		for len(list) < 2*statsBound {
			list = append(list, 2, 0)
		}
		c := d.entries(append(list, 5, 1)...)
		c.n = test.n
		d.submit(queueStats, c)
		d.dev.Serve(queueStats, d.q[queueStats])
		if got := d.dev.Stats().Guest; !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestStatsFlood: a guest fills the queue, which it must not (§5.5.6.4.1). One buffer is
// used each time.
func TestStatsFlood(t *testing.T) {
	d := start(t, all)
	c := d.entries(4, 3)
	for range 8 {
		d.submit(queueStats, c)
	}
	for range 5 {
		d.dev.mu.Lock()
		d.dev.poll.ask = true
		d.dev.mu.Unlock()
		d.dev.Serve(queueStats, d.q[queueStats])
		if n := d.answered(queueStats); n != 1 {
			t.Fatalf("%d buffers used", n)
		}
	}
}
