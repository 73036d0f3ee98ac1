package machine

import (
	"fmt"

	"vmm/devices/virtio/vsock"
	"vmm/hostsock"
)

// Vsock is a virtio socket device: streams between programs in the guest and on the
// host, which find each other by Unix sockets.
type Vsock struct {
	Path string // of the socket for connections to the guest; the guest's connections to port N go to Path_N
	CID  uint32 `json:",omitempty"` // the guest's address; 0 is DefaultCID
}

// DefaultCID is the guest's address. Several guests may have the same one, because
// each has its own path.
const DefaultCID = vsock.MinCID

func (c *Config) validateVsock() error {
	v := c.Vsock
	switch {
	case v == nil:
	case v.Path == "":
		return &ConfigError{"Vsock", "no path"}
	case v.CID != 0 && (v.CID < vsock.MinCID || v.CID > vsock.MaxCID):
		return &ConfigError{"Vsock", fmt.Sprintf("%s: cid %d; a guest has one from %d to %d", v.Path, v.CID, vsock.MinCID, uint32(vsock.MaxCID))}
	}
	return nil
}

// addVsock creates the socket device of the Config, if any.
func (m *Machine) addVsock() error {
	c := m.config.Vsock
	if c == nil {
		return nil
	}
	p := m.newPart("vsock %s", c.Path)
	host, err := hostsock.New(c.Path, m.files.set, m.log)
	if err != nil {
		return &VsockError{err}
	}
	p.opened(host.Close)
	cid := c.CID
	if cid == 0 {
		cid = DefaultCID
	}
	host.Owner, host.Most = m.panicked, m.take(p, m.budget.vsock)
	d := vsock.New(cid, host)
	d.Owner = m.panicked
	return m.addVirtio(p, d, classOther)
}

// VsockError says that the socket device of the Config cannot be used on this host.
type VsockError struct{ Err error }

func (e *VsockError) Error() string { return "vsock " + e.Err.Error() }
func (e *VsockError) Unwrap() error { return e.Err }
