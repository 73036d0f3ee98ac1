package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmm/kvm"
)

// CPUStats counts what one vCPU has done.
type CPUStats struct {
	Exits       map[string]uint64 // to this program, by reason; KVM handles most exits itself
	Guest, Host time.Duration     // of its thread: in guest code, and in KVM and this program
}

// reasons is how many exit reasons are counted separately; higher ones, which KVM has
// for other processors, count as the last.
const reasons = 40

// cpuStats counts what a vCPU does. Its thread writes, others read.
type cpuStats struct {
	id      int
	tracing *atomic.Pointer[trace] // the machine's
	exits   [reasons]atomic.Uint64
	thread  atomic.Int32 // its ID; 0: not running

	mu   sync.Mutex
	last CPUStats // guarded by mu; the times of an ended thread
}

// count is called for each exit. It takes some nanoseconds: no lock, and no allocation
// unless a trace is running.
func (s *cpuStats) count(e kvm.Exit) {
	s.exits[min(e.Reason, reasons-1)].Add(1)
	if t := s.tracing.Load(); t != nil {
		t.add(s.id, e)
	}
}

// leave is called by the thread at its end, because its times cannot be read later.
func (s *cpuStats) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.Guest, s.last.Host = threadTimes(int(s.thread.Swap(0)))
}

func (s *cpuStats) load() CPUStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := CPUStats{Exits: map[string]uint64{}, Guest: s.last.Guest, Host: s.last.Host}
	if id := s.thread.Load(); id != 0 {
		c.Guest, c.Host = threadTimes(int(id))
	}
	for r := range s.exits {
		if n := s.exits[r].Load(); n > 0 {
			c.Exits[kvm.Reason(r).String()] = n
		}
	}
	return c
}

// tick is the unit of times in /proc, USER_HZ: 100 per second on every Linux.
const tick = 10 * time.Millisecond

// threadTimes returns the CPU time used by a thread of this process, see proc(5). User
// time includes guest time.
func threadTimes(id int) (guest, host time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", id))
	if err != nil {
		return 0, 0
	}
	return parseTimes(string(b))
}

func parseTimes(stat string) (guest, host time.Duration) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime, stime, guestTime = 11, 12, 40 // counted from 0 after the name
	if len(fields) <= guestTime {
		return 0, 0
	}
	n := func(i int) time.Duration {
		v, _ := strconv.ParseInt(fields[i], 10, 64)
		return time.Duration(v) * tick
	}
	guest = n(guestTime)
	return guest, max(n(utime)+n(stime)-guest, 0)
}
