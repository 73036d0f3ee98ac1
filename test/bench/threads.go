package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// thread is a thread of a VMM at one moment.
type thread struct {
	id   string
	name string
	used time.Duration // on a processor, so far
}

// vcpu matches the names of the threads that run the guest, in QEMU and vmm: their time
// is mostly the guest's own.
var vcpu = regexp.MustCompile(`^(CPU \d+/KVM|vcpu ?\d+)$`)

// threadTimes returns the threads of a process, none if it has ended.
func threadTimes(pid int) (all []thread) {
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is valid
	for _, dir := range dirs {
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has just ended
		}
		schedstat, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			continue
		}
		used, err := parseSchedstat(string(schedstat))
		if err != nil {
			continue
		}
		all = append(all, thread{filepath.Base(dir), strings.TrimSpace(string(name)), used})
	}
	return all
}

// parseSchedstat parses /proc/PID/task/TID/schedstat: nanoseconds on a processor,
// nanoseconds of waiting for one, and how often it ran. It returns the first.
func parseSchedstat(line string) (used time.Duration, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat: %q", line)
	}
	ns, err := strconv.ParseInt(fields[0], 10, 64)
	return time.Duration(ns), err
}

// workerTime returns the time that all threads except the vCPUs' used between two
// moments. A new thread counts from its start. The time of a thread that has ended is
// lost, but the thread pools of all rivals keep theirs longer than a phase. It returns
// false if it finds no vCPU thread, because then these cannot be told from others.
func workerTime(before, after []thread) (used time.Duration, ok bool) {
	until := map[string]time.Duration{}
	for _, t := range before {
		until[t.id] = t.used
	}
	for _, t := range after {
		if vcpu.MatchString(t.name) {
			ok = true
			continue
		}
		used += t.used - until[t.id]
	}
	return used, ok
}
