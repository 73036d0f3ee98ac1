package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/lab/wire"
)

// host is the other end of the wire.
type host struct {
	mu   sync.Mutex // guards json
	json *json.Encoder
}

// say sends one reply. If the other end has gone, there is no reason to continue.
func (h *host) say(r wire.Reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.json.Encode(r); err != nil {
		os.Exit(1)
	}
}

// serve runs jobs until the other end hangs up.
func serve() error {
	port, err := openPort(wire.Port)
	if err != nil {
		return err
	}
	h := &host{json: json.NewEncoder(port)}
	h.say(wire.Reply{Up: up()})
	go func() {
		for range time.Tick(wire.Heartbeat) {
			h.say(wire.Reply{})
		}
	}()
	requests := json.NewDecoder(port)
	var j *job // the newest; it may have ended
	for {
		var r wire.Request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch {
		case r.Run != nil:
			j = start(h, r.Job, r.Run)
		case j != nil && j.number == r.Job:
			j.handle(&r)
		}
	}
}

// openPort opens a virtio serial port by name, for blocking use.
func openPort(name string) (*os.File, error) {
	const class = "/sys/class/virtio-ports"
	ports, err := os.ReadDir(class)
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		is, err := os.ReadFile(filepath.Join(class, p.Name(), "name"))
		if err != nil || strings.TrimSpace(string(is)) != name {
			continue
		}
		path := "/dev/" + p.Name()
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	return nil, fmt.Errorf("no virtio serial port is called %s", name)
}

func up() *wire.Up {
	u := new(wire.Up)
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		u.Release = unix.ByteSliceToString(name.Release[:])
	}
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) == nil {
		u.Uptime = time.Duration(now.Nano())
	}
	return u
}
