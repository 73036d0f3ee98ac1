package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"vmm/ethernet/pcap"
	"vmm/hostfile"
	"vmm/usernet"
)

// Files holds what the paths of a Config lead to. A guest may start many times, and in
// a directory shared with it, it may replace any file by a link. So the paths are
// resolved once, before its first run, and all its machines use what they led to then.
// A file replaced since then is used only after the next Hold. Files also holds
// published ports, from the first machine on, so that no other process takes one
// between two machines.
type Files struct {
	set *hostfile.Set

	mu    sync.Mutex
	pcaps map[string]*pcap.File  // guarded by mu; recordings by path, once begun
	ports map[int]*usernet.Ports // guarded by mu; by network card
}

// A Place is one of the caller's own paths, which also must not be where a guest
// decides what it leads to.
type Place struct {
	Name string // what it is, for errors: the flag, for example
	Path string
	Root bool // a directory in which files are created
}

// CollisionError says that a path leads through a directory that the guest may write
// to, or that such a directory is inside one of this program's.
type CollisionError struct {
	Field, Path string // a field of Config, or a Place's name
	In, Dir     string // likewise: Shares, and the directory of the share
	Own         bool   // the reverse: Field is Shares, and In holds files of this program
}

func (e *CollisionError) Error() string {
	if e.Own {
		return fmt.Sprintf("%s %s is inside %s %s, where only vmm makes files: share another directory, or this one read-only", e.Field, e.Path, e.In, e.Dir)
	}
	return fmt.Sprintf("%s %s is inside %s %s, where the guest decides what its path leads to: keep it elsewhere, or share that directory read-only", e.Field, e.Path, e.In, e.Dir)
}

// Hold resolves the paths of c. The caller puts the result into c.Files for all
// machines of one guest, and closes it after the last one. The error is a
// *CollisionError; New reports other errors of a path. On error nothing is created.
func Hold(c *Config, others ...Place) (*Files, error) {
	f := &Files{set: hostfile.New(slices.ContainsFunc(c.Shares, writable)), pcaps: map[string]*pcap.File{}, ports: map[int]*usernet.Ports{}}
	if err := f.hold(c, others); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writable(s Share) bool { return !s.ReadOnly }

// named is a Place that has been resolved.
type named struct {
	Place
	at *hostfile.Place
}

func (f *Files) hold(c *Config, others []Place) error {
	var all, shares []named
	add := func(list *[]named, field, path string, at *hostfile.Place) {
		*list = append(*list, named{Place{Name: field, Path: path}, at})
	}
	for i := range c.Shares {
		add(&shares, "Shares", c.Shares[i].Dir, f.set.Hold(c.Shares[i].Dir))
	}
	add(&all, "Kernel", c.Kernel, f.set.Hold(c.Kernel))
	for _, path := range c.Initrds {
		add(&all, "Initrds", path, f.set.Hold(path))
	}
	for i := range c.Disks {
		add(&all, "Disks", c.Disks[i].Path, f.set.Hold(c.Disks[i].Path))
	}
	for i := range c.Nets {
		if path := c.Nets[i].PCAP; path != "" {
			add(&all, "Nets", "pcap="+path, f.set.HoldParent(path))
		}
	}
	if c.Vsock != nil {
		add(&all, "Vsock", c.Vsock.Path, f.set.HoldParent(c.Vsock.Path))
	}
	if c.KernelCache != "" {
		others = append(slices.Clip(others), Place{"KernelCache", c.KernelCache, true})
	}
	for _, p := range others {
		if p.Root {
			all = append(all, named{p, f.set.Root(p.Path)})
		} else {
			add(&all, p.Name, p.Path, f.set.Look(p.Path))
		}
	}
	for i := range c.Shares {
		if !writable(c.Shares[i]) {
			continue
		}
		for _, p := range slices.Concat(shares, all) {
			if p.at.Through(shares[i].at) {
				return &CollisionError{Field: p.Name, Path: p.Path, In: "Shares", Dir: c.Shares[i].Dir}
			}
			if p.Root && shares[i].at.Through(p.at) {
				return &CollisionError{Field: "Shares", Path: c.Shares[i].Dir, In: p.Name, Dir: p.Path, Own: true}
			}
		}
	}
	if c.KernelCache != "" {
		f.set.HoldRoot(c.KernelCache)
	}
	return nil
}

// record returns the recording at path, ready for the next machine's frames.
func (f *Files) record(path string) (*pcap.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rec := f.pcaps[path]
	if rec == nil {
		file, err := f.set.Create(path, os.O_RDWR|os.O_APPEND)
		if err != nil {
			return nil, err
		}
		if rec, err = pcap.NewFile(file); err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		f.pcaps[path] = rec
	}
	if err := rec.Begin(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rec, nil
}

// publish returns the published ports of a network card. It binds them only once.
func (f *Files) publish(card int, forwards []Forward) (*usernet.Ports, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.ports[card]; p != nil {
		return p, nil
	}
	list := make([]usernet.Forward, len(forwards))
	for i, w := range forwards {
		list[i] = usernet.Forward(w)
	}
	p, err := usernet.Listen(list)
	if err == nil {
		f.ports[card] = p
	}
	return p, err
}

// Bound returns c with the actual ports of those forwards that are bound.
func (f *Files) Bound(c Config) Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Nets = slices.Clone(c.Nets)
	for card, p := range f.ports {
		c.Nets[card].Forwards = nil
		for _, w := range p.Forwards() {
			c.Nets[card].Forwards = append(c.Nets[card].Forwards, Forward(w))
		}
	}
	return c
}

// Close releases what is held. No machine of the Config may be left.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := []error{f.set.Close()}
	for path, rec := range f.pcaps {
		errs = append(errs, rec.Close())
		delete(f.pcaps, path)
	}
	for card, p := range f.ports {
		errs = append(errs, p.Close())
		delete(f.ports, card)
	}
	return errors.Join(errs...)
}
