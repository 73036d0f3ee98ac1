package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// tellClocks prints the clocks that begin at boot and in 1970, in ns, ten times a
// second, forever.
func tellClocks() error {
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return err
	}
	fmt.Printf("CLOCKSOURCE %s\n", bytes.TrimSpace(source))
	for {
		var mono, real unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono)
		unix.ClockGettime(unix.CLOCK_REALTIME, &real)
		fmt.Printf("CLOCK %d %d\n", mono.Nano(), real.Nano())
		time.Sleep(100 * time.Millisecond)
	}
}

// watchdogs matches kernel messages of watchdogs that believe that the kernel stood
// still.
var watchdogs = regexp.MustCompile(`soft lockup|hard LOCKUP|detected stalls|self-detected stall|blocked for more than|rcu.*starved|timekeeping watchdog|as unstable|TSC unstable due to clocksource`)

// complaints prints the lines of the kernel log that watchdogs matches, and their
// number.
func complaints() error {
	log := make([]byte, 1<<20)
	const all = 3 // SYSLOG_ACTION_READ_ALL
	n, err := unix.Klogctl(all, log)
	if err != nil {
		return err
	}
	count := 0
	for line := range bytes.Lines(log[:n]) {
		if watchdogs.Match(line) {
			os.Stdout.Write(line)
			count++
		}
	}
	fmt.Printf("COMPLAINTS %d\n", count)
	return nil
}
