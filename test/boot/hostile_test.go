package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"vmm/test/allow"
	"vmm/test/boot/pattern"
)

// What package attack assumes: the size of the two disks, their content, and which
// bytes of the victim its writes may change.
const (
	hostileDisk = 8 << 20
	zoneStart   = 8192 * 512
	zoneEnd     = 12288 * 512
)

// TestHostile: root in a guest abuses a disk or a network card in hundreds of cases.
// The device works after each case, and other devices work all the time. Only written
// sectors change, and vmm neither dies, nor grows, nor fills its log.
func TestHostile(t *testing.T) {
	for _, test := range []struct {
		transport, victim string
		every             int // the lab runs one case of this many; 0: only in soak
		cases             int // at least
	}{{"pci", "disk", 3, 400}, {"mmio", "disk", 4, 250}, {"pci", "nic", 6, 200}, {"mmio", "nic", 0, 0}} {
		t.Run(test.transport+"/"+test.victim, func(t *testing.T) {
			need(t, cloud)
			if test.every == 0 && inLab && !soak {
				t.Skip("in the lab this takes minutes: set VMM_SOAK=1, as make soak does")
			}
			h := &hostile{victim: filepath.Join(t.TempDir(), "victim"), bystander: filepath.Join(t.TempDir(), "bystander")}
			attempt(t, func() *guest {
				h.makeDisks(t)
				return onPipes(cloud.args("-m", "512M", "-c", "2", "--transport", test.transport, "--net", map[string]string{"disk": "none", "nic": "user"}[test.victim],
					"--disk", h.bystander+",serial=bystander", "--disk", h.victim+",serial=victim",
					"--initrd", tool(t), "-a", "quiet mem=508M iomem=relaxed", "-a", execution("/tool attack -ram 512 -victim "+test.victim+workload(test.every)))...)
			}, func(g *guest) { h.run(g, test.cases) })
		})
	}
}

// workload limits the work in the lab: one case of every, and a part of the storms.
func workload(every int) string {
	if inLab && !soak {
		return fmt.Sprintf(" -scale 10 -every %d", every)
	}
	return ""
}

// hostile is one run.
type hostile struct{ victim, bystander string }

func (h *hostile) makeDisks(t *testing.T) {
	b := pattern.Bytes(hostileDisk)
	err := os.WriteFile(h.victim, b, 0o600)
	for i := range b {
		b[i] ^= 0x80 // attack's bystanderSalt
	}
	if err := errors.Join(err, os.WriteFile(h.bystander, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (h *hostile) run(g *guest, cases int) {
	g.expect("ATTACK-BEGIN")
	m := watchMemory(g.cmd.Process.Pid)
	limit := allow.Time(150 * time.Second)
	if soak {
		limit = allow.Time(15 * time.Minute) // for all cases, in the lab
	}
	deadline := time.After(limit)
	for !g.shows("ATTACK-CASES") {
		select {
		case <-g.news:
		case <-g.exited:
			fail(g.crashed(), "vmm ended (%v) amidst the attack", g.err)
		case <-deadline:
			fail(true, "the attack has not ended")
		}
	}
	first, most := m.stop()
	g.status(64, 65)
	fmt.Println(attackLines(g.tail(1 << 20)))
	h.checkOutput(g.tail(8<<20), cases)
	if g.cmd.ProcessState.ExitCode() != 64 {
		fail(false, "cases failed")
	}
	h.checkDisks()
	if first == 0 || most > first+64<<20 {
		fail(false, "vmm grew from %d MiB to %d, without the guest", first>>20, most>>20)
	}
	fmt.Printf("vmm had %d MiB, at most %d\n", first>>20, most>>20)
}

// attackLines returns the lines of out that are meant for people.
func attackLines(out string) string {
	return strings.Join(regexp.MustCompile(`ATTACK-(GROUP|FAIL|CASES)[^\r\n]*`).FindAllString(out, 100), "\n")
}

// checkOutput checks what the guest and vmm printed.
func (h *hostile) checkOutput(out string, cases int) {
	n, passed, failed := 0, 0, 0
	_, after, _ := strings.Cut(out, "ATTACK-CASES ")
	fmt.Sscanf(after, "%d passed %d failed %d", &n, &passed, &failed)
	if n < cases {
		fail(false, "there were %d cases, not %d", n, cases)
	}
	for _, bad := range []string{"panic:", "internal error", "fatal error:", "goroutine ", "Kernel panic", "BUG:", "Oops:"} {
		if i := strings.Index(out, bad); i >= 0 {
			fail(false, "%s", out[max(0, i-200):min(len(out), i+2000)])
		}
	}
	// Every log line is due to an action of the guest, which it can repeat as often as
	// it likes.
	log := regexp.MustCompile(`(?m)^time=\S+ level=.*$`).FindAllString(out, -1)
	const most = 2000
	if len(log) > most {
		fail(false, "vmm's log has %d lines, more than %d; one is %s", len(log), most, log[len(log)/2])
	}
	fmt.Printf("vmm's log has %d lines\n", len(log))
}

func (h *hostile) checkDisks() {
	want := pattern.Bytes(hostileDisk)
	got, err := os.ReadFile(h.victim)
	if err != nil || len(got) != len(want) {
		fail(false, "the victim's image: %d bytes, %v", len(got), err)
	}
	copy(got[zoneStart:zoneEnd], want[zoneStart:zoneEnd])
	if i := difference(got, want); i >= 0 {
		fail(false, "sector %d of the victim was changed", i/512)
	}
	for i := range want {
		want[i] ^= 0x80
	}
	got, err = os.ReadFile(h.bystander)
	if i := difference(got, want); err != nil || i >= 0 {
		fail(false, "sector %d of the bystander was changed (%v)", i/512, err)
	}
}

// difference returns the index of the first byte that differs, or -1.
func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// memoryWatch watches how a process's memory grows, except the guest's.
type memoryWatch struct {
	end         chan struct{}
	done        sync.WaitGroup
	first, most int
}

func watchMemory(pid int) *memoryWatch {
	m := &memoryWatch{end: make(chan struct{})}
	m.done.Go(func() {
		for {
			n := ownMemory(pid)
			if m.first == 0 {
				m.first = n
			}
			m.most = max(m.most, n)
			select {
			case <-m.end:
				return
			case <-time.After(allow.Time(2 * time.Second)):
			}
		}
	})
	return m
}

func (m *memoryWatch) stop() (first, most int) {
	close(m.end)
	m.done.Wait()
	return m.first, m.most
}

// ownMemory returns a process's resident memory in bytes, without most of the guest's
// RAM, which is the largest gapless piece of address space. (The rest of RAM and the
// kernel image keep their size after the boot.)
func ownMemory(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0
	}
	sum, ram := 0, 0 // kB
	var last, size, largest uint64
	rss := 0 // of the piece
	for line := range strings.Lines(string(b)) {
		var start, end uint64
		var access string
		var kB int
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &access); n == 3 {
			if start != last || access[0] != 'r' {
				size, rss = 0, 0
			}
			last, size = end, size+end-start
		} else if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kB); n == 1 {
			sum, rss = sum+kB, rss+kB
			if size >= largest {
				largest, ram = size, rss
			}
		}
	}
	return (sum - ram) << 10
}
