package main

import (
	"os"
	"strconv"
	"strings"
)

// options are what the kernel's command line says to this program.
type options struct {
	exec     string  // vmm.exec: run this with the shell, then power off
	exitPort uint16  // vmm.exit: write the status to this port first; 0 for none
	hostname string  // vmm.hostname
	ip       string  // vmm.ip: ADDRESS/LENGTH[,GATEWAY] of eth0, none, or by DHCP
	dns      string  // vmm.dns: address of the DNS server
	shell    string  // vmm.shell: give the host a shell on this vsock port
	shares   []share // vmm.share: TAG:PATH[:ro], what to mount; may be repeated
	quiet    bool    // vmm.quiet: no greeting
}

func readOptions() options {
	line, err := os.ReadFile("/proc/cmdline")
	complain("/proc/cmdline", err)
	o, err := parseOptions(string(line))
	complain("kernel command line", err)
	return o
}

// parseOptions reads the options from a kernel command line. It ignores other parameters,
// and keeps the defaults for values that it does not understand.
func parseOptions(line string) (options, error) {
	o := options{hostname: "guest"}
	var wrong error
	for _, word := range words(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "vmm.exec":
			o.exec = value
		case "vmm.exit":
			port, err := strconv.ParseUint(value, 0, 16)
			if err != nil {
				wrong = err
			}
			o.exitPort = uint16(port)
		case "vmm.hostname":
			o.hostname = value
		case "vmm.ip":
			o.ip = value
		case "vmm.dns":
			o.dns = value
		case "vmm.shell":
			o.shell = value
		case "vmm.share":
			s, err := parseShare(value)
			if err != nil {
				wrong = err
				continue
			}
			o.shares = append(o.shares, s)
		case "vmm.quiet":
			o.quiet = true
		}
	}
	return o, wrong
}

// words splits a command line as the kernel does: at blanks outside double quotes, which
// are removed.
func words(line string) []string {
	quoted := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for i := range fields {
		fields[i] = strings.ReplaceAll(fields[i], `"`, "")
	}
	return fields
}
