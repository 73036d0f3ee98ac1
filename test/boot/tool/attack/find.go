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

// device is a virtio device as in sysfs.
type device struct {
	name   string // vda, eth0
	parent string // folder of the device that carries the virtio device: on PCI, or from ACPI
}

// findDisk waits for the disk with a serial number.
func findDisk(serial string) (device, error) {
	return find("/sys/block/vd*", "no disk with the serial number "+serial, func(dir string) bool {
		b, _ := os.ReadFile(filepath.Join(dir, "serial"))
		return strings.TrimSpace(string(b)) == serial
	})
}

// find waits for a folder that matches the pattern and is wanted.
func find(pattern, none string, wanted func(dir string) bool) (device, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			if wanted(dir) {
				virtio, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
				return device{filepath.Base(dir), filepath.Dir(virtio)}, err
			}
		}
	}
	return device{}, errors.New(none)
}

// bus returns pci or platform.
func (d device) bus() string {
	link, _ := os.Readlink(filepath.Join(d.parent, "subsystem"))
	return filepath.Base(link)
}

// unbind takes the device from the kernel's driver. bind gives it back.
func (d device) unbind() (bind func() error, err error) {
	driver, err := filepath.EvalSymlinks(filepath.Join(d.parent, "driver"))
	if err != nil {
		return nil, err
	}
	name := []byte(filepath.Base(d.parent))
	bind = func() error { return os.WriteFile(filepath.Join(driver, "bind"), name, 0) }
	return bind, os.WriteFile(filepath.Join(driver, "unbind"), name, 0)
}

// addressOf returns the start of the first range of physical addresses whose line in
// /proc/iomem contains name.
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
