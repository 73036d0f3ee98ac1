package main

import (
	"fmt"
	"strconv"
	"strings"

	"vmm/machine"
)

// disks is the flag --disk, which may be repeated:
//
//	PATH[,ro][,direct=on|off][,serial=TEXT][,queues=N]
//
// A comma in a path is doubled.
type disks []machine.Disk

// Set implements pflag.Value.
func (d *disks) Set(text string) error {
	words := splitComma(text)
	disk := machine.Disk{Path: words[0]}
	if disk.Path == "" {
		return fmt.Errorf("has no path; write it as PATH[,ro][,direct=on][,serial=TEXT][,queues=N]")
	}
	for _, word := range words[1:] {
		if err := setDiskOption(&disk, word); err != nil {
			return err
		}
	}
	*d = append(*d, disk)
	return nil
}

func setDiskOption(d *machine.Disk, word string) (err error) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "ro":
		d.ReadOnly, err = onOff(key, value, true)
	case "direct":
		d.Direct, err = onOff(key, value, true)
	case "serial":
		d.Serial = value
	case "queues":
		if d.Queues, err = strconv.Atoi(value); err != nil || d.Queues < 1 {
			return fmt.Errorf("queues=%s: must be a number from 1 on", value)
		}
	default:
		known := []string{"ro", "direct", "serial", "queues"}
		if near := nearest(known, key); near != "" {
			return fmt.Errorf("unknown option %q; did you mean %s?", word, near)
		}
		return fmt.Errorf("unknown option %q; there are %s (and a comma in a path is written twice)", word, strings.Join(known, ", "))
	}
	return err
}

// onOff reads on or off; bare is the result if there is no value.
func onOff(key, value string, bare bool) (bool, error) {
	switch value {
	case "":
		return bare, nil
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%s=%s: must be on or off", key, value)
}

// splitComma splits at single commas; a doubled comma stands for one and does not split.
func splitComma(text string) []string { return splitAt(text, ',') }

// splitAt is splitComma for any separator. The result has at least one element.
func splitAt(text string, sep byte) []string {
	words := []string{""}
	for i := 0; i < len(text); i++ {
		last := &words[len(words)-1]
		switch {
		case text[i] != sep:
			*last += string(text[i])
		case i+1 < len(text) && text[i+1] == sep:
			*last += string(sep)
			i++
		default:
			words = append(words, "")
		}
	}
	return words
}

// String implements pflag.Value.
func (d *disks) String() string {
	var paths []string
	for _, disk := range *d {
		paths = append(paths, disk.Path)
	}
	return strings.Join(paths, " ")
}

// Type implements pflag.Value.
func (d *disks) Type() string { return "disk" }

// transport is the flag --transport.
type transport struct{ *machine.Transport }

// Set implements pflag.Value.
func (t transport) Set(text string) error {
	switch v := machine.Transport(text); v {
	case machine.PCI, machine.MMIO, machine.MMIOCmdline:
		*t.Transport = v
		return nil
	}
	return fmt.Errorf("must be pci, mmio or mmio-cmdline")
}

// String implements pflag.Value.
func (t transport) String() string {
	if t.Transport == nil || *t.Transport == "" {
		return string(machine.PCI)
	}
	return string(*t.Transport)
}

// Type implements pflag.Value.
func (t transport) Type() string { return "transport" }
