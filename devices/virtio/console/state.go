package console

import (
	"encoding/json"
	"fmt"

	"vmm/devices/virtio"
)

// saved is the state of a console, for a Saver: what the guest has been told, and
// what it is still to get. Output is not part of it: it is written once, by the
// process in which the guest wrote it.
type saved struct {
	Cols, Rows uint16      `json:",omitempty"`
	Ready      bool        `json:",omitempty"`
	Ports      []savedPort // as many as the device has
}

type savedPort struct {
	control
	Open  bool   `json:",omitempty"`
	Input []byte `json:",omitempty"`
	Skip  uint64 `json:",omitempty"` // of the chain at the front of its queue
	virtio.Notice
}

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := saved{Cols: d.cols, Rows: d.rows, Ready: d.ready}
	for _, p := range d.ports {
		p.mu.Lock()
		s.Ports = append(s.Ports, savedPort{control: p.control, Open: p.open, Input: append([]byte(nil), p.input...), Skip: p.skip, Notice: p.notice})
		p.mu.Unlock()
	}
	return json.Marshal(s)
}

// Load implements virtio.Saver.
func (d *Device) Load(b []byte) error {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("virtio console: %w", err)
	}
	if len(s.Ports) != len(d.ports) {
		return fmt.Errorf("virtio console: the state is of a device with %d ports, not %d", len(s.Ports), len(d.ports))
	}
	for i, p := range s.Ports {
		switch {
		case len(p.Input) > inputSize:
			return fmt.Errorf("virtio console: the state has %d bytes for port %d, more than %d", len(p.Input), i, inputSize)
		case p.Pending&^pendingAll != 0:
			return fmt.Errorf("virtio console: the state has messages %#x for port %d, which are none", p.Pending, i)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cols, d.rows, d.ready = s.Cols, s.Rows, s.Ready
	for i, p := range d.ports {
		p.control = s.Ports[i].control
		p.mu.Lock()
		p.open, p.input, p.skip, p.notice.Due = s.Ports[i].Open, s.Ports[i].Input, s.Ports[i].Skip, s.Ports[i].Due
		p.mu.Unlock()
	}
	return nil
}
