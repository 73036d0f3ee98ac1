package attack

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// disk is a virtio disk as the kernel has it in sysfs.
type disk struct {
	name   string // vda
	parent string // folder of the device that the virtio device is on: PCI, or ACPI's
}

// findDisk waits for the disk with a serial number.
func findDisk(serial string) (disk, error) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		files, _ := filepath.Glob("/sys/block/vd*/serial")
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) != serial {
				continue
			}
			dir := filepath.Dir(f)
			virtio, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
			return disk{filepath.Base(dir), filepath.Dir(virtio)}, err
		}
	}
	return disk{}, fmt.Errorf("no disk with the serial number %q", serial)
}

// bus returns pci or platform.
func (d disk) bus() string {
	link, _ := os.Readlink(filepath.Join(d.parent, "subsystem"))
	return filepath.Base(link)
}

// unbind takes the device away from the kernel's driver, and returns how to
// give it back.
func (d disk) unbind() (bind func() error, err error) {
	driver, err := filepath.EvalSymlinks(filepath.Join(d.parent, "driver"))
	if err != nil {
		return nil, err
	}
	name := []byte(filepath.Base(d.parent))
	bind = func() error { return os.WriteFile(filepath.Join(driver, "bind"), name, 0) }
	return bind, os.WriteFile(filepath.Join(driver, "unbind"), name, 0)
}

// addressOf returns the start of the first range of physical addresses whose
// line in /proc/iomem ends with name.
func addressOf(name string) (uint64, error) {
	f, err := os.Open("/proc/iomem")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		at, what, _ := strings.Cut(line, " : ")
		var start, end uint64
		if n, _ := fmt.Sscanf(at, "%x-%x", &start, &end); n == 2 && strings.Contains(what, name) {
			return start, nil
		}
	}
	return 0, errors.New("/proc/iomem has no " + name)
}
