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

// thread is a thread of a VMM, at one moment.
type thread struct {
	id   string
	name string
	used time.Duration // on a processor, until now
}

// vcpu are the names of those that run the guest, of QEMU and of vmm: what they
// use is mostly the guest's own.
var vcpu = regexp.MustCompile(`^(CPU \d+/KVM|vcpu ?\d+)$`)

// threadTimes returns the threads of a process, none if it has ended.
func threadTimes(pid int) (all []thread) {
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is a good one
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

// parseSchedstat reads /proc/PID/task/TID/schedstat: nanoseconds on a
// processor, nanoseconds of waiting for one, and how often.
func parseSchedstat(line string) (used time.Duration, err error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat: %q", line)
	}
	ns, err := strconv.ParseInt(fields[0], 10, 64)
	return time.Duration(ns), err
}

// workerTime is what all threads but the vCPUs' have used between two moments.
// A new thread counts from its birth; what one used that has ended is lost, but
// the pools of all rivals keep theirs for longer than a phase takes. It is
// false if no vCPU's thread is among them: then nobody knows which is.
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
