package machine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vmm/devices/virtio/net"
	"vmm/ethernet"
	"vmm/ethernet/limit"
	"vmm/ethernet/pcap"
	"vmm/tap"
	"vmm/usernet"
)

// Net is a virtio network card and its connection: a tap, or the user-mode network in
// this process, which needs no privilege.
type Net struct {
	Tap    string `json:",omitempty"` // the tap's name; "" means user mode
	MAC    string `json:",omitempty"` // "" derives it from the guest's name
	Queues int    `json:",omitempty"` // queue pairs, tap only; 0 means 1
	PCAP   string `json:",omitempty"` // file to record frames to

	BytesPerSecond  uint64        `json:",omitempty"` // in each direction; 0 is no limit
	FramesPerSecond uint64        `json:",omitempty"`
	Burst           time.Duration `json:",omitempty"` // at the full rate; 0 is limit.DefaultBurst

	// User mode only.
	Forwards     []Forward `json:",omitempty"`
	HostLoopback bool      `json:",omitempty"` // the gateway's address reaches the host's loopback
}

// Forward leads from a port of the host to a port of the guest.
type Forward struct {
	UDP    bool           `json:",omitempty"`
	Listen netip.AddrPort // port 0 is any free port
	Guest  uint16
}

// MaxNets bounds a Config.
const MaxNets = 8

func (n *Net) validate() error {
	name := "user"
	if n.Tap != "" {
		name = "tap=" + n.Tap
	}
	_, err := parseMAC(n.MAC)
	switch {
	case n.MAC != "" && err != nil:
		return fmt.Errorf("%s: mac %s: %w", name, n.MAC, err)
	case n.Queues < 0 || n.Queues > net.MaxPairs:
		return fmt.Errorf("%s: %d queues; a card has 1 to %d", name, n.Queues, net.MaxPairs)
	case n.Tap == "" && n.Queues > 1:
		return fmt.Errorf("%s: %d queues; user mode has one", name, n.Queues)
	case n.Burst < 0:
		return fmt.Errorf("%s: burst %v is negative", name, n.Burst)
	case n.Tap != "" && (len(n.Forwards) > 0 || n.HostLoopback):
		return fmt.Errorf("%s: a tap forwards no ports; they are of user mode", name)
	}
	return nil
}

// parseMAC parses a unicast address: six hexadecimal bytes with colons.
func parseMAC(s string) (m ethernet.MAC, err error) {
	if n, err := fmt.Sscanf(s, "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]); n != len(m) || err != nil || len(s) != 17 {
		return m, errors.New("is no address such as 52:54:00:12:34:56")
	}
	if m.Multicast() || m == (ethernet.MAC{}) {
		return m, errors.New("is no address of one station: the first byte must be even, and not all may be 0")
	}
	return m, nil
}

// defaultMAC is the same for a guest of the same name on any host, and differs for
// each of its cards. It is locally administered and unicast.
func defaultMAC(guest string, card int) (m ethernet.MAC) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", guest, card))
	copy(m[:], sum[:])
	m[0] = m[0]&^3 | 2
	return m
}

// nic is a card, and the recorder of its frames, if any.
type nic struct {
	device *net.Device
	pcap   *pcap.Link
}

// closer is a link that holds host resources.
type closer interface {
	ethernet.Link
	Close() error
}

// openNets creates a device for each network card of the Config.
func (m *Machine) openNets() error {
	for i := range m.config.Nets {
		if err := m.openNet(i); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) openNet(i int) error {
	c := m.config.Nets[i]
	var n nic
	p := m.newPart("network card %d", i)
	far, err := m.openLink(p, c, i)
	if err != nil {
		return &NetError{err}
	}
	p.opened(far.Close)
	link := ethernet.Link(far)
	if c.BytesPerSecond > 0 || c.FramesPerSecond > 0 {
		bounded := limit.New(link, limit.Rate{Bytes: float64(c.BytesPerSecond), Frames: float64(c.FramesPerSecond), Burst: c.Burst})
		bounded.Owner = m.panicked
		link = bounded
	}
	if c.PCAP != "" {
		file, err := m.files.record(c.PCAP)
		if err != nil {
			return &NetError{fmt.Errorf("pcap: %w", err)}
		}
		n.pcap = pcap.New(link, file, m.log)
		p.does(n.pcap.Flush)
		n.pcap.Owner = m.panicked
		link = n.pcap
	}
	mac := defaultMAC(m.config.Name, i)
	if c.MAC != "" {
		mac, _ = parseMAC(c.MAC) // validated
	}
	if n.device, err = net.New(link, mac); err != nil {
		return err
	}
	m.devices.nics = append(m.devices.nics, n)
	return m.addVirtio(p, n.device, classNetwork)
}

func (m *Machine) openLink(p *part, c Net, card int) (closer, error) {
	if c.Tap != "" {
		t, err := tap.Open(c.Tap, max(c.Queues, 1))
		if err != nil {
			return nil, err
		}
		t.Owner = m.panicked
		return t, nil
	}
	ports, err := m.files.publish(card, c.Forwards)
	if err != nil {
		return nil, err
	}
	n, err := usernet.New(usernet.Config{Descriptors: m.take(p, m.budget.network), Ports: ports, HostLoopback: c.HostLoopback, Log: m.log, Owner: m.panicked})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// NetError says that a network card of the Config cannot be used on this host.
type NetError struct{ Err error }

func (e *NetError) Error() string { return e.Err.Error() }
func (e *NetError) Unwrap() error { return e.Err }

// NetStats returns the counters of a network card, given its index in the Config.
func (m *Machine) NetStats(card int) net.Stats { return m.devices.nics[card].device.Stats() }

// SetLink plugs the cable of a network card in or out.
func (m *Machine) SetLink(card int, up bool) { m.devices.nics[card].device.SetUp(up) }
