package main

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vmm/guest/modules"
)

const moduleDir = "/lib/modules"

// loader loads modules from the initramfs, each one once.
type loader struct {
	index  modules.Index
	loaded map[string]bool
}

// newLoader returns nil for an initramfs without modules.
func newLoader() *loader {
	f, err := os.Open(filepath.Join(moduleDir, "index"))
	if err != nil {
		return nil
	}
	defer f.Close()
	index, err := modules.ReadIndex(f)
	complain(f.Name(), err)
	return &loader{index, map[string]bool{}}
}

// load loads the modules that modalias asks for. It reports whether any of them was new.
func (l *loader) load(modalias string) bool {
	fresh := false
	for _, name := range l.index.For(modalias) {
		if l.loaded[name] {
			continue
		}
		l.loaded[name], fresh = true, true
		complain("load", modules.Load(filepath.Join(moduleDir, name+".ko")))
	}
	return fresh
}

// buses are where devices with drivers in the initramfs can appear, and the devices that
// such drivers add.
var buses = []string{
	"/sys/bus/acpi/devices", "/sys/bus/pci/devices", "/sys/bus/virtio/devices", "/sys/class/input",
}

// coldplug loads the drivers of the devices that exist. A driver may add new devices
// (virtio_pci does), so this repeats until there is nothing new.
func (g *guest) coldplug() {
	l := newLoader()
	for again := l != nil; again; {
		again = false
		for _, bus := range buses {
			devices, err := os.ReadDir(bus)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				complain("devices", err)
			}
			for _, d := range devices {
				modalias, err := os.ReadFile(filepath.Join(bus, d.Name(), "modalias"))
				if err == nil && l.load(strings.TrimSpace(string(modalias))) {
					again = true
				}
			}
		}
	}
}

// modprobe is what the kernel runs when it wants a module by a name such as fs-virtiofs,
// for a mount.
func modprobe(args []string) int {
	l := newLoader()
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if l == nil || len(l.index.For(name)) == 0 {
			complain(name, errors.New("no such module in the initramfs"))
			return 1
		}
		l.load(name)
	}
	return 0
}

// Linux input events, <linux/input-event-codes.h> and struct input_event.
const (
	evKey     = 0x01 // EV_KEY
	keyPower  = 116  // KEY_POWER
	eventSize = 24
)

// watchButton sends on g.button when the power button is pressed.
func (g *guest) watchButton() {
	paths, _ := filepath.Glob("/dev/input/event*")
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			complain(path, err)
			continue
		}
		go func() {
			defer f.Close()
			event := make([]byte, eventSize)
			for {
				if n, err := f.Read(event); err != nil || n != eventSize {
					return
				}
				if isPowerKey(event) {
					g.button <- struct{}{}
				}
			}
		}()
	}
}

// isPowerKey reports whether an event says that the power button was pressed down.
func isPowerKey(event []byte) bool {
	le := binary.LittleEndian
	return le.Uint16(event[16:]) == evKey && le.Uint16(event[18:]) == keyPower && le.Uint32(event[20:]) == 1
}
