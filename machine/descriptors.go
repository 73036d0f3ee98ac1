package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio/fs"
	"vmm/hostsock"
	"vmm/usernet"
)

// Reserved is how many of the process's descriptors no machine may take. They are for
// clients that ask to stop the machine, for logs, and for the rest of the program.
const Reserved = 320

// descriptors is the accountant of this process: its promises to machines stay below
// the limit minus Reserved. So a guest can make us open everything it was promised,
// and no other user runs short.
var descriptors accountant

type accountant struct {
	mu       sync.Mutex
	promised int // guarded by mu
}

// budget is what was promised to a machine.
type budget struct {
	all     int // includes the fixed ones, excludes what parts have taken
	fixed   int // what it needs whatever the guest does
	share   int // each
	network int // each, user mode only
	vsock   int
}

// need is a part's minimum, its maximum, and its weight for what is left.
type need struct{ least, most, weight int }

// For parts that a guest can make grow.
var (
	shareNeed   = need{64, 1 << 20, 4} // a guest keeps open as many files as it has memory for
	networkNeed = need{64, usernet.MaxDescriptors, 1}
	vsockNeed   = need{32, hostsock.MaxDescriptors, 1}
)

// promise returns the budget of a machine. The caller gives it back as descriptors are
// closed.
func (a *accountant) promise(c *Config) (budget, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	raiseDescriptors()
	limit, open := descriptorLimit(), openDescriptors()
	b, all, ok := divide(limit-open-a.promised-Reserved, c)
	if !ok {
		return b, &HostError{
			fmt.Sprintf("this process may open %d files, and has %d open and %d promised; the guest's devices need %d and %d are reserved", limit, open, a.promised, all, Reserved),
			fmt.Sprintf("raise the limit: ulimit -n %d", open+a.promised+all+Reserved), nil,
		}
	}
	a.promised += all
	b.all = all
	return b, nil
}

func (a *accountant) giveBack(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.promised -= n
}

// divide divides n descriptors among the parts of a machine: each gets its minimum,
// and a share of what is left by its weight, up to its maximum. all is the total they
// get or, if ok is false, the total they need.
func divide(n int, c *Config) (b budget, all int, ok bool) {
	b.fixed = fixedDescriptors(c)
	shares, networks, sockets := len(c.Shares), 0, 0
	for _, w := range c.Nets {
		if w.Tap == "" {
			networks++
		}
	}
	if c.Vsock != nil {
		sockets = 1
	}
	parts := []struct {
		need
		count int
		has   *int // each
	}{{shareNeed, shares, &b.share}, {networkNeed, networks, &b.network}, {vsockNeed, sockets, &b.vsock}}
	all = b.fixed
	for _, p := range parts {
		*p.has = p.least
		all += p.count * p.least
	}
	if all > n {
		return b, all, false
	}
	n = max(all, n/4*3)       // there may be other machines
	for more := true; more; { // until no part wants more, or less than one each is left
		more = false
		weights := 0
		for _, p := range parts {
			if *p.has < p.most {
				weights += p.count * p.weight
			}
		}
		if weights == 0 {
			break
		}
		unit := (n - all) / weights
		for _, p := range parts {
			if add := min(unit*p.weight, p.most-*p.has); add > 0 && p.count > 0 {
				*p.has += add
				all += add * p.count
				more = true
			}
		}
	}
	return b, all, true
}

// fixedDescriptors is the most descriptors a machine has open, including while it is
// built, except those promised to its parts.
func fixedDescriptors(c *Config) int {
	device := func(queues int) int { return 2*queues + 2 } // doorbells, vectors, and the backend
	n := 16 + c.CPUs                                       // the VM; files read during the build
	n += 3*len(c.Initrds) + 8                              // held and opened; a kernel and its cache
	for _, d := range c.Disks {
		n += device(max(d.Queues, 1)) + 2
	}
	for _, w := range c.Nets {
		n += device(2*max(w.Queues, 1)+1) + 2*max(w.Queues, 1) + 8 + 3*len(w.Forwards)
	}
	for range c.Shares {
		n += device(1+min(c.CPUs, maxShareQueues)) + 4 + 2*(fs.Workers+min(c.CPUs, maxShareQueues)) // a request opens files of its own
	}
	n += device(1) + device(5) + device(3) + 8                                   // random numbers, balloon, socket
	return n + device(2) + device(2+2*len(c.Ports)) + 3*len(c.Ports) + device(0) // consoles, with one client each
}

// raiseDescriptors raises the process's limit, once, as far as possible. Go's runtime
// has raised it to the hard limit. Without a service manager that can be as low as
// 4096, and only a privileged user can raise it.
var raiseDescriptors = sync.OnceFunc(func() {
	var limit unix.Rlimit
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && limit.Max < most {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}) // otherwise it stays
	}
})

func descriptorLimit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<30))
}

// openDescriptors is the number of descriptors that the process has open.
func openDescriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 64
	}
	return len(list)
}
