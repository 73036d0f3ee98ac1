package modules

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"
)

// Module is one loadable module of a kernel.
type Module struct {
	Name    string   // as /proc/modules spells it, with underscores
	Path    string   // its file on this host
	Depends []string // names of the modules that must be loaded before it
	Aliases []string // patterns of the devices that it drives
}

// Parse reads the module's own .modinfo section: the strings that depmod turns into
// modules.dep and modules.alias.
func Parse(object []byte) (Module, error) {
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return Module{}, err
	}
	section := f.Section(".modinfo")
	if section == nil || section.Type == elf.SHT_NOBITS {
		return Module{}, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return Module{}, err
	}
	var m Module
	for entry := range strings.SplitSeq(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "name":
			m.Name = canonical(value)
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.Depends = append(m.Depends, canonical(name))
				}
			}
		case "alias":
			// The index is separated by blanks; no device alias contains one.
			if value != "" && !strings.ContainsAny(value, " \t\r\n") {
				m.Aliases = append(m.Aliases, value)
			}
		}
	}
	return m, nil
}

// canonical returns a module's name in the kernel's spelling.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }
