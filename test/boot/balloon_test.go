package boot

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmm/machine"
)

// inProcess attempts f with a machine in this process, for features without a command
// flag. g has its console, like that of a vmm on pipes.
func inProcess(t *testing.T, c machine.Config, f func(g *guest, m *machine.Machine)) {
	t.Helper()
	var m *machine.Machine
	start := func() (g *guest) {
		g, m = embedded(t, c)
		return g
	}
	attempt(t, start, func(g *guest) { f(g, m) })
}

func embedded(t *testing.T, c machine.Config) (*guest, *machine.Machine) {
	in, keyboard := io.Pipe()
	g := &guest{cmd: &exec.Cmd{}, input: keyboard, exited: make(chan struct{}), news: make(chan struct{}, 1)}
	c.ConsoleIn, c.ConsoleOut, c.KernelCache = in, g, filepath.Join(os.Getenv("XDG_CACHE_HOME"), "vmm", "kernels")
	m, err := machine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	g.kill = func() {
		m.Close()
		in.Close()
	}
	go func() {
		var end machine.End
		end, g.err = m.Run(context.Background())
		g.died = g.err != nil || end.Reason != machine.PowerOff
		close(g.exited)
	}()
	return g, m
}

// anonymous returns how much host memory this process has, except what it shares with
// files, in MiB.
func anonymous() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fail(false, "%v", err)
	}
	_, line, _ := strings.Cut(string(status), "RssAnon:")
	kib, err := strconv.Atoi(strings.Fields(line)[0])
	if err != nil {
		fail(false, "RssAnon: %v", err)
	}
	return kib >> 10
}

// until polls for something that the guest does in its own time.
func until(what string, cond func() bool) {
	for end := time.Now().Add(patience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			fail(true, "after %v: no %s", patience, what)
		}
	}
}

// meminfo returns a line of the guest's /proc/meminfo, in MiB.
func (g *guest) meminfo(name string) int {
	g.send("grep " + name + ": /proc/meminfo\n")
	g.expect("meminfo\r\n" + name + ":")
	from := g.seen
	g.prompt()
	g.mu.Lock()
	defer g.mu.Unlock()
	kib, err := strconv.Atoi(strings.Fields(string(g.output.Bytes()[from:]))[0])
	if err != nil {
		fail(false, "%s: %v", name, err)
	}
	return kib >> 10
}

// TestBalloon: memory that the guest used and no longer needs returns to the host, by
// itself and when the host asks for it. The guest gets it again, and without the host's
// request when it runs short.
func TestBalloon(t *testing.T) {
	need(t, cloud)
	c := machine.Config{Kernel: cloud.image(), Initrds: []string{cloud.initrd()}, CPUs: 1, Memory: 512 << 20, Append: []string{"quiet"}}
	inProcess(t, c, func(g *guest, m *machine.Machine) {
		g.prompt()
		for _, check := range []func(*testing.T, *guest, *machine.Machine){balloonReports, balloonInflates, balloonStats, balloonOOM} {
			check(t, g, m)
		}
	})
}

const fill = 200 // MiB

// use makes the guest use memory.
func (g *guest) use(mib int) {
	g.do(fmt.Sprintf("dd if=/dev/zero of=/tmp/fill bs=1048576 count=%d; ls -l /tmp/fill", mib), fmt.Sprint(mib<<20))
}

func balloonReports(t *testing.T, g *guest, m *machine.Machine) {
	before := anonymous()
	g.use(fill)
	full := anonymous()
	if full < before+fill*3/4 {
		fail(false, "%d MiB before and %d after the guest has used %d: it is not seen", before, full, fill)
	}
	freed := time.Now()
	g.do("rm /tmp/fill", "")
	// Linux reports blocks of 2 MiB and more. After a test, many blocks lack a page,
	// which is on the free lists of the guest's one CPU.
	until("memory back", func() bool { return anonymous() < full-fill*2/5 })
	after, took := anonymous(), time.Since(freed)
	g.do("echo 1 > /proc/sys/vm/compact_memory", "")
	until("all memory back", func() bool { return anonymous() < before+fill/10 })
	s, err := m.BalloonStats()
	if err != nil || s.Reported == 0 {
		fail(false, "%+v, %v", s, err)
	}
	t.Logf("free page reports: %d MiB in the host, %d when the guest uses %d more, %d %.1f s after they were freed, %d after compaction", before, full, fill, after, took.Seconds(), anonymous())
}

// actual waits until the balloon has its size.
func actual(m *machine.Machine, mib uint64) {
	until(fmt.Sprintf("balloon of %d MiB", mib), func() bool {
		s, err := m.BalloonStats()
		return err == nil && s.Actual == mib<<20
	})
}

func balloonInflates(t *testing.T, g *guest, m *machine.Machine) {
	g.use(fill)
	g.do("rm /tmp/fill", "")
	free := g.meminfo("MemFree")
	full, reported := anonymous(), balloonReported(m)
	if err := m.SetBalloon(300 << 20); err != nil {
		fail(false, "%v", err)
	}
	actual(m, 300)
	after := anonymous()
	if after > full-fill/2 {
		fail(false, "%d MiB before and %d after the balloon got 300", full, after)
	}
	small := g.meminfo("MemFree")
	if small > free-280 {
		fail(false, "the guest has %d MiB free of %d with 300 in the balloon", small, free)
	}
	t.Logf("a balloon of 300 MiB: from %d to %d MiB in the host (%d MiB of it by reports); the guest has %d MiB free, %d before", full, after, (balloonReported(m)-reported)>>20, small, free)
	if err := m.SetBalloon(0); err != nil {
		fail(false, "%v", err)
	}
	actual(m, 0)
	if again := g.meminfo("MemFree"); again < free-20 {
		fail(false, "the guest has %d MiB free after the balloon is empty, %d before", again, free)
	}
}

func balloonReported(m *machine.Machine) uint64 {
	s, _ := m.BalloonStats()
	return s.Reported
}

func balloonStats(t *testing.T, g *guest, m *machine.Machine) {
	if err := m.PollBalloon(200 * time.Millisecond); err != nil {
		fail(false, "%v", err)
	}
	begun := time.Now()
	until("statistics", func() bool {
		s, _ := m.BalloonStats()
		return s.Time.After(begun)
	})
	s, _ := m.BalloonStats()
	total, free := s.Guest["total-memory"]>>20, s.Guest["free-memory"]>>20
	if want := uint64(g.meminfo("MemTotal")); total != want || free == 0 || free > total {
		fail(false, "the guest has %d MiB and says %v", want, s.Guest)
	}
	t.Logf("statistics %v old: %v", time.Since(s.Time).Round(time.Millisecond), s.Guest)
	m.PollBalloon(0)
}

// balloonOOM: a program needs more than the balloon has left, and gets it.
func balloonOOM(t *testing.T, g *guest, m *machine.Machine) {
	if err := m.SetBalloon(320 << 20); err != nil {
		fail(false, "%v", err)
	}
	actual(m, 320)
	available := g.meminfo("MemAvailable")
	need := available + 30 // the driver gives 1 MiB at a time: more takes the lab minutes
	g.use(need)
	s, _ := m.BalloonStats()
	if s.Actual >= s.Target {
		fail(false, "the balloon has still %d MiB", s.Actual>>20)
	}
	g.do("dmesg | grep -c 'Killed process'", "0\r\n")
	t.Logf("with %d MiB available a program used %d MiB: the balloon of %d MiB has %d left", available, need, s.Target>>20, s.Actual>>20)
}
