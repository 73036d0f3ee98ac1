package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"vmm/test/lab/qemu"
)

// host describes where the figures were measured: they mean little elsewhere.
type host struct {
	Lab     bool // an emulated processor (docs/lab.md): ratios count, seconds do not
	Counted bool `json:",omitempty"` // its clock counts instructions
	CPU     string
	CPUs    int
	Kernel  string
	Go      string
	QEMU    string `json:",omitempty"`
	Version string `json:",omitempty"` // of vmm, from vmm version
}

func thisHost(f files, counted bool) host {
	h := host{Counted: counted, Lab: os.Getenv("VMM_LAB") != "" && emulated(), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	h.CPU = cpuModel()
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h.Kernel = strings.TrimSpace(string(b))
	}
	if program, err := qemu.Find(context.Background()); err == nil {
		h.QEMU = "QEMU " + program.Version
	}
	h.Version = firstLine(f.vmm, "version")
	return h
}

func (h host) String() string {
	where := "natively"
	switch {
	case h.Counted:
		where = "in the lab, where a nanosecond is an instruction"
	case h.Lab:
		where = "in the lab, an emulated processor: only ratios mean anything"
	}
	return fmt.Sprintf("%s; %d x %s, Linux %s; %s; %s", where, h.CPUs, h.CPU, h.Kernel, h.Version, h.QEMU)
}

// emulated tells the lab's L1 guest from a host where bin/lab runs commands directly
// and sets VMM_LAB too.
func emulated() bool { return strings.HasPrefix(cpuModel(), "QEMU") }

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, model, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}

// firstLine returns the first line that a command prints, or "" if it does not run.
func firstLine(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
