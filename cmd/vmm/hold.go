package main

import (
	"cmp"
	"errors"
	"strings"

	"vmm/machine"
)

// hold resolves all paths of the command line, for all lives of the guest, and refuses
// paths that the guest could redirect. It is called before anything is opened or made.
func (o *runOptions) hold(runtimeDir string) (*machine.Files, error) {
	own := []machine.Place{{Name: "--runtime-dir", Path: runtimeDir, Root: true}}
	add := func(flag, spec string) {
		if kind, path, _ := strings.Cut(spec, ":"); path != "" && (kind == "file" || kind == "unix") {
			own = append(own, machine.Place{Name: flag, Path: path})
		}
	}
	add("--serial", o.serial)
	for _, p := range o.ports {
		add("--console-port", p.spec)
	}
	return machine.Hold(&o.config, own...)
}

// flags maps a Config's fields to their flags.
var flags = map[string]string{
	"Kernel": "--kernel", "Initrds": "--initrd", "KernelCache": "--kernel-cache", "CPUs": "--cpus", "Memory": "--memory", "Disks": "--disk", "Nets": "--net",
	"Shares": "--volume", "Vsock": "--vsock", "Balloon": "--balloon", "Console": "--console", "Ports": "--console-port", "Transport": "--transport",
}

// flagName replaces the fields in errors of package machine by flags.
func flagName(err error) error {
	var (
		bad    *machine.ConfigError
		inside *machine.CollisionError
	)
	switch {
	case errors.As(err, &bad):
		return &machine.ConfigError{Field: flags[bad.Field], Why: bad.Why}
	case errors.As(err, &inside):
		e := *inside
		e.Field, e.In = cmp.Or(flags[e.Field], e.Field), cmp.Or(flags[e.In], e.In)
		return &e
	}
	return err
}
