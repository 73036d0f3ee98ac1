// Package attack is a hostile program inside a guest. It takes one virtio device, a
// disk or a network card, from the kernel's driver and abuses its registers, rings and
// configuration space in some hundreds of cases. Meanwhile another disk and the entropy
// device must keep working for the kernel.
//
// After each case the victim is reset and must serve a good request. The device gets
// only addresses of our own memory, and others where the kernel has no memory: a device
// that writes where it was told to is not at fault.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package attack

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// test is one case.
type test struct {
	name string
	opt  options // how the device is set up first
	bare bool    // no setup: run does it
	run  func(d *driver) error
}

// group is a set of cases that are counted together.
type group struct {
	name  string
	tests []test
}

// bystanderEvery is the number of cases between two checks of the bystander.
const bystanderEvery = 16

// victim is the kind of device under attack: its good requests, and the cases for it
// alone. All other cases abuse one of its queues, whatever the device.
type victim interface {
	find() (device, error)
	look(at device) error // before it is taken from the kernel
	queues() (one, all uint32)
	enable(d *driver) // sets up the other queues
	hasStatus() bool  // requests have a status byte, as for disks
	request(d *driver) []buf
	large(d *driver, n uint32) []buf // moves n bytes, or as many as possible
	good(d *driver) error
	groups(d *driver) []group
	works(at device) error // once the kernel's driver has it back
}

var victims = map[string]victim{"disk": &disk{}, "nic": &nic{}}

// Run attacks a device, with the disk with the serial number "bystander" as a
// bystander.
func Run(args []string) error {
	flags := flag.NewFlagSet("attack", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "of what is random")
	ram := flags.Uint64("ram", 512, "RAM of the machine in MiB; the kernel must leave the last 4 alone (mem=)")
	kind := flags.String("victim", "disk", "what is attacked: disk, the one with the serial number victim, or nic, which must be in user mode")
	var c choice
	flags.StringVar(&c.only, "only", "", "groups whose name has this")
	flags.Uint64Var(&c.every, "every", 1, "one of so many cases, chosen by the seed")
	flags.BoolVar(&c.verbose, "v", false, "name each case before it runs")
	scale := flags.Int("scale", 100, "per cent of the storms")
	if err := flags.Parse(args); err != nil {
		return err
	}
	v := victims[*kind]
	if v == nil {
		return fmt.Errorf("-victim %s: not disk or nic", *kind)
	}
	at, err := v.find()
	if err != nil {
		return err
	}
	d, bind, err := newDriver(v, at, *ram<<20)
	if err != nil {
		return err
	}
	c.seed = *seed
	d.rand = rand.New(rand.NewPCG(c.seed, 0))
	fmt.Printf("ATTACK-BEGIN on %s, %s, seed %d\n", at.name, at.bus(), c.seed)
	n, failures := d.runAll(groups(d, *scale), c)
	if err := d.giveBack(bind); err != nil {
		fmt.Println("ATTACK-FAIL the kernel's driver:", err)
		failures++
	}
	fmt.Printf("ATTACK-CASES %d passed %d failed %d\n", n, n-failures, failures)
	if failures > 0 {
		return fmt.Errorf("%d cases failed", failures)
	}
	return nil
}

// newDriver takes the victim from the kernel. bind gives it back.
func newDriver(v victim, at device, ramEnd uint64) (d *driver, bind func() error, err error) {
	other, err := findDisk("bystander")
	if err != nil {
		return nil, nil, err
	}
	if err := unused(ramEnd); err != nil {
		return nil, nil, err
	}
	d = &driver{ramEnd: ramEnd, victim: v}
	d.queue, _ = v.queues()
	if d.mem, err = newMemory(); err != nil {
		return nil, nil, err
	}
	d.fresh = rings{d.mem.phys + atDesc, d.mem.phys + atDriver, d.mem.phys + atDevice}
	if d.by, err = newBystander(other.name); err != nil {
		return nil, nil, err
	}
	if err := v.look(at); err != nil {
		return nil, nil, err
	}
	if bind, err = at.unbind(); err != nil {
		return nil, nil, err
	}
	if at.bus() == "pci" {
		d.port, err = newPCI(at)
	} else {
		d.port, err = newMMIO(at)
	}
	return d, bind, err
}

// unused checks that the kernel leaves the last 4 MiB of RAM alone.
func unused(ramEnd uint64) error {
	b, err := os.ReadFile("/proc/iomem")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		var start, end uint64
		fmt.Sscanf(strings.TrimSpace(line), "%x-%x", &start, &end)
		if strings.HasSuffix(line, "System RAM\n") && end >= ramEnd-4<<20 {
			return fmt.Errorf("the kernel uses RAM up to %#x: boot it with mem=%dM", end, ramEnd>>20-4)
		}
	}
	return nil
}

// groups returns all cases for the victim and its transport.
func groups(d *driver, scale int) []group {
	all := append(d.victim.groups(d), []group{
		{"indirect", indirectTests(d)},
		{"split-rings", splitTests()},
		{"packed-rings", packedTests()},
		{"overlaps", overlapTests()},
		{"ring-places", ringPlaceTests(d)},
		{"garbage-rings", garbageTests()},
		{"queue-setup", setupTests()},
		{"features", featureTests()},
		{"status", statusTests()},
		{"registers", registerTests(d)},
		{"config", configTests()},
		{"notify", notifyTests(d)},
		{"storms", stormTests(scale)},
	}...)
	if p, ok := d.port.(*pciPort); ok {
		all = append(all, p.groups(d, scale)...)
	}
	return all
}

// fewCases is the largest group that always runs in full.
const fewCases = 8

// choice selects the cases to run.
type choice struct {
	only        string
	every, seed uint64
	verbose     bool
}

// runAll runs the cases and prints one line per group.
func (d *driver) runAll(all []group, c choice) (n, failures int) {
	for _, g := range all {
		if !strings.Contains(g.name, c.only) {
			continue
		}
		began, n0, failures0 := time.Now(), n, failures
		for _, t := range g.tests {
			name := g.name + "/" + t.name
			hash := fnv.New64a()
			io.WriteString(hash, name)
			if len(g.tests) > fewCases && (hash.Sum64()>>32)%c.every != c.seed%c.every {
				continue
			}
			d.rand = rand.New(rand.NewPCG(c.seed, hash.Sum64())) // independent of earlier cases
			if c.verbose {
				fmt.Println(name)
			}
			if err := d.runOne(t, n%bystanderEvery == 0); err != nil {
				failures++
				fmt.Printf("ATTACK-FAIL %s: %v\n", name, err)
			}
			n++
		}
		fmt.Printf("ATTACK-GROUP %s: %d passed of %d in %.1fs\n", g.name, n-n0-(failures-failures0), n-n0, time.Since(began).Seconds())
	}
	return n, failures
}

// runOne runs a case, and the checks after each case.
func (d *driver) runOne(t test, look bool) error {
	var errs []error
	if !t.bare {
		errs = append(errs, d.start(t.opt))
	}
	if errs = append(errs, t.run(d)); errors.Join(errs...) != nil {
		errs = append(errs, d.sound(t.opt.packed))
		return errors.Join(errs...)
	}
	if err := d.sound(t.opt.packed); err != nil {
		return err
	}
	if look {
		return d.by.check()
	}
	return nil
}

// giveBack returns the victim to the kernel's driver, and uses it.
func (d *driver) giveBack(bind func() error) error {
	if err := errors.Join(d.reset(), bind()); err != nil {
		return err
	}
	at, err := d.victim.find()
	if err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if err = d.victim.works(at); err == nil || time.Now().After(end) {
			return errors.Join(err, d.by.check())
		}
	}
}
