package boot

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmm/client"
	"vmm/roster"
)

// TestPauseClocks: for a guest paused longer than its watchdogs allow, no time has
// passed, whatever its clock source. Only its wall clock must be corrected, which its
// init does within a second.
func TestPauseClocks(t *testing.T) {
	need(t, cloud, cpu)
	for name, test := range map[string]struct {
		kernel kernel
		append string
		slow   time.Duration // how much worse it may be in the lab
		cpus   int           // the only number of CPUs for which the lab has time
	}{
		"kvmclock": {cloud, "", 3 * time.Second, 2},
		"tsc":      {cloud, "clocksource=tsc tsc=reliable", 3 * time.Second, 2},
		// Such guests have only ticks, and lose some on a busy host.
		"neither": {cloud, "no-kvmclock notsc clocksource=jiffies lapic=notscdeadline", 5 * time.Second, 1},
		"cpu":     {cpu, "", 5 * time.Second, 2},
	} {
		for cpus := 1; cpus <= 2; cpus++ {
			if inLab && !soak && cpus != test.cpus {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, cpus), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "r")
				program := tool(t)
				attempt(t, func() *guest {
					return onPipes(test.kernel.args("-m", "256M", "-c", fmt.Sprint(cpus), "-a", "quiet "+test.append,
						"--initrd", program, "--name", "clocks", "--runtime-dir", dir)...)
				}, func(g *guest) { pauseClocks(g, dir, test.slow) })
			})
		}
	}
}

// A reading is what the guest's clocks say, and when it arrived.
type reading struct {
	mono, real time.Duration
	came       time.Time
}

// behind is how far the guest's wall clock is behind, including the time its output
// took to arrive.
func (r reading) behind() time.Duration { return time.Duration(r.came.UnixNano()) - r.real }

// complaints returns how often the kernel's watchdogs have fired. In the lab they may
// fire during boot.
func (g *guest) complaints() (n int) {
	g.send("/tool complaints\n")
	g.expect("COMPLAINTS ")
	fmt.Sscan(g.line(), &n)
	g.prompt()
	return n
}

// line returns the rest of a line of the console.
func (g *guest) line() string {
	g.mu.Lock()
	from := g.seen
	g.mu.Unlock()
	g.expect("\n")
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.output.Bytes()[from:g.seen])
}

// clock returns the guest's next reading.
func (g *guest) clock() (r reading) {
	g.expect("CLOCK ")
	if n, err := fmt.Sscan(g.line(), &r.mono, &r.real); n != 2 {
		fail(false, "the guest's clocks: %v", err)
	}
	r.came = time.Now()
	return r
}

// How long a guest is paused, and how far and for how long its wall clock may be off.
const (
	longPause = 22 * time.Second // soft lockups are found after 20 s, stalls of RCU after 21
	off       = time.Second
)

func pauseClocks(g *guest, dir string, slow time.Duration) {
	if !inLab {
		slow = 0
	}
	g.patiently(g.prompt)
	complaints := g.complaints()
	g.send("/tool clocks\n")
	g.expect("CLOCKSOURCE ")
	for range 20 { // a second for init, whose clock may start one second off
		g.clock()
	}
	before := g.clock()
	if before.behind().Abs() > off+slow {
		fail(false, "before the pause the wall clock is behind by %v", before.behind())
	}
	before = g.pauseFor(dir, "clocks", longPause, before)
	resumed := time.Now()
	first := g.clock()
	after := first
	for ; after.behind().Abs() > off+slow; after = g.clock() {
		if after.mono-first.mono > off+slow {
			fail(false, "the wall clock is still behind by %v, %v after the pause", after.behind(), after.mono-first.mono)
		}
	}
	took := after.mono - first.mono
	right := after
	for after.mono-first.mono < 5*time.Second { // time for watchdogs
		after = g.clock()
	}
	passed := after.mono - before.mono - after.came.Sub(resumed)
	if passed > off+slow { // less is not due to the pause: a guest with only ticks can lose some
		fail(false, "%v have passed in a guest that was paused for %v", passed, longPause)
	}
	fmt.Printf("a pause of %v was %v to the guest, whose wall clock was right %v later, to %v\n", longPause, passed, took, right.behind())
	g.send("\x03")
	g.prompt()
	if n := g.complaints(); n != complaints {
		fail(false, "the kernel's watchdogs barked %d times", n-complaints)
	}
	g.send("poweroff\n")
	g.status(0)
}

// pauseFor pauses the guest for the given time. It returns the last reading before the
// pause, which is last or a later one.
func (g *guest) pauseFor(dir, name string, pause time.Duration, last reading) reading {
	r, err := roster.Open(dir)
	if err != nil {
		fail(false, "%v", err)
	}
	c, err := client.Open(r, name)
	if err != nil {
		fail(false, "%v", err)
	}
	defer c.Close()
	call := func(what string, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f(ctx); err != nil {
			fail(g.crashed(), "%s: %v", what, err)
		}
	}
	call("pause", c.Pause)
	time.Sleep(pause)
	for strings.Count(g.unseen(), "CLOCK ") > 0 && strings.HasSuffix(g.unseen(), "\n") {
		last = g.clock()
	}
	call("resume", c.Resume)
	return last
}

// unseen returns the console output after the text that was last expected.
func (g *guest) unseen() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return string(g.output.Bytes()[g.seen:])
}
