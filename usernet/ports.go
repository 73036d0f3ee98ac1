package usernet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Ports are host ports that lead to a guest. They stay bound from Listen to Close, over
// all lives of the guest: no other process gets them in between. A client that connects
// between two lives waits for the next.
type Ports struct{ list []heldPort }

// heldPort is a bound port: either a listener or a socket.
type heldPort struct {
	Forward
	l *net.TCPListener
	c *net.UDPConn
}

// Listen binds all ports of a guest, or none.
func Listen(list []Forward) (*Ports, error) {
	p := &Ports{}
	for _, f := range list {
		h := heldPort{Forward: f}
		if err := h.listen(); err != nil {
			p.Close()
			return nil, explainListen(f, err)
		}
		p.list = append(p.list, h)
	}
	return p, nil
}

// listen binds a port. 0.0.0.0 means all of IPv4 and no IPv6, and :: the reverse.
func (h *heldPort) listen() (err error) {
	address := h.Listen.Addr().Unmap()
	family := "6"
	if address.Is4() {
		family = "4"
	}
	at := netip.AddrPortFrom(address, h.Listen.Port())
	if h.UDP {
		if h.c, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at)); err == nil {
			h.Listen = netip.AddrPortFrom(address, h.c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		}
		return err
	}
	if h.l, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at)); err == nil {
		h.Listen = netip.AddrPortFrom(address, h.l.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	return err
}

// explainListen adds advice to an error of listen.
func explainListen(f Forward, err error) error {
	proto := "tcp"
	if f.UDP {
		proto = "udp"
	}
	name := fmt.Sprintf("forward %s %s port %d", proto, f.Listen.Addr(), f.Listen.Port())
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: in use: choose another", name)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: not allowed to this user: choose one from 1024 on", name)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: no address of this host: choose one of `ip address`", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// dup duplicates the port's socket for one life, which closes the duplicate.
func (h *heldPort) dup() (*net.TCPListener, *net.UDPConn, error) {
	if h.UDP {
		f, err := h.c.File()
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, nil, err
		}
		return nil, c.(*net.UDPConn), nil
	}
	var f *os.File
	f, err := h.l.File()
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, nil, err
	}
	return l.(*net.TCPListener), nil, nil
}

// Forwards returns the forwards, each with the port that it got.
func (p *Ports) Forwards() (list []Forward) {
	for _, h := range p.list {
		list = append(list, h.Forward)
	}
	return list
}

// Close releases the ports.
func (p *Ports) Close() error {
	var errs []error
	for _, h := range p.list {
		if h.UDP {
			errs = append(errs, h.c.Close())
		} else {
			errs = append(errs, h.l.Close())
		}
	}
	return errors.Join(errs...)
}
