package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"vmm/machine"
)

// finding is one line of the doctor's report.
type finding struct {
	state string // ok, note, LIMIT (full kernels do not run) or FAIL (no guest does)
	what  string
	do    string // what to do about it; empty for ok
}

func (p *program) newDoctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Tell whether this host can run guests, and if not, why and what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !report(cmd.OutOrStdout(), examine(p.kvm, p.cpuinfo)) {
				return &statusError{code: exitHost}
			}
			return nil
		},
	}
}

// examine checks the host.
func examine(device, cpuinfo string) []finding {
	found := []finding{examineCPU(cpuinfo)}
	sys, err := machine.OpenKVM(device)
	if err != nil {
		why, do, _ := strings.Cut(err.Error(), "; ")
		return append(found, finding{"FAIL", why, do})
	}
	defer sys.Close()
	return append(found,
		finding{"ok", device + " offers all that a machine needs", ""},
		finding{"ok", fmt.Sprintf("up to %d vCPUs a guest; this host has %d CPUs", machine.MaxVCPUs(sys), runtime.NumCPU()), ""},
		examineHugePages("/sys/kernel/mm/transparent_hugepage/enabled"),
		examineMemory("/proc/meminfo"),
		examinePing("/proc/sys/net/ipv4/ping_group_range"),
		examineLookups(machine.Openat2()),
	)
}

func examineCPU(cpuinfo string) finding {
	flag, err := machine.HardwareFlag(cpuinfo)
	switch {
	case err != nil:
		return finding{"note", err.Error(), "mount /proc"}
	case flag == "":
		why, do, _ := strings.Cut(machine.InterpretedWarning, "; ")
		return finding{"LIMIT", why, do}
	}
	return finding{"ok", "the processor virtualizes (" + flag + ")", ""}
}

func examineHugePages(path string) finding {
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "[never]") {
		return finding{"note", "no transparent huge pages: guests run, but slower", "echo madvise | sudo tee " + path}
	}
	return finding{"ok", "transparent huge pages for guest memory", ""}
}

func examineMemory(path string) finding {
	b, err := os.ReadFile(path)
	if err != nil {
		return finding{"note", err.Error(), "mount /proc"}
	}
	for line := range strings.Lines(string(b)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return finding{"ok", fmt.Sprintf("%d MiB of memory available", kib>>10), ""}
		}
	}
	return finding{"note", path + " does not tell how much memory is available", "mind it yourself"}
}

// examinePing checks whether a guest in user mode can ping outwards. This needs Linux's
// ICMP sockets, which are open to a range of groups, see icmp(7).
func examinePing(path string) finding {
	b, err := os.ReadFile(path)
	if err != nil {
		return finding{"note", err.Error(), "mount /proc"}
	}
	var first, last int
	if n, _ := fmt.Sscan(string(b), &first, &last); n != 2 {
		return finding{"note", fmt.Sprintf("%s is %q, not two numbers", path, b), "mind it yourself"}
	}
	groups, _ := os.Getgroups() // if this fails, the effective group remains
	for _, g := range append(groups, os.Getegid()) {
		if first <= g && g <= last {
			return finding{"ok", "guests on --net user can ping other hosts", ""}
		}
	}
	return finding{"note", "guests on --net user cannot ping other hosts", "sudo sysctl net.ipv4.ping_group_range='0 2147483647'"}
}

// examineLookups says how shared folders look up names.
func examineLookups(openat2 bool) finding {
	if openat2 {
		return finding{"ok", "shared folders look names up by openat2", ""}
	}
	return finding{"note", "openat2 is refused here: shared folders work, but look names up more slowly",
		"Linux 5.6 or later; in a unit RestrictSUIDSGID=no and DynamicUser=no; in a container a seccomp profile that allows openat2"}
}

// report prints the findings and reports whether full kernels can run.
func report(w io.Writer, found []finding) bool {
	is := map[string]bool{}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		is[f.state] = true
		fmt.Fprintf(t, "%s\t%s\n", f.state, f.what)
		if f.do != "" {
			fmt.Fprintf(t, "\t-> %s\n", f.do)
		}
	}
	t.Flush()
	switch {
	case is["FAIL"]:
		fmt.Fprintln(w, "This host cannot run guests.")
	case is["LIMIT"]:
		fmt.Fprintln(w, "This host can run small test guests, but full kernels will not run.")
	default:
		fmt.Fprintln(w, "This host can run guests.")
	}
	return !is["FAIL"] && !is["LIMIT"]
}
