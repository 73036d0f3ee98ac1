// Package tap uses host taps: a tap is a network interface whose cable ends in a file
// descriptor of this process. See Linux's Documentation/networking/tuntap.rst.
package tap

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"vmm/ethernet"
	"vmm/task"
)

// device is the file that creates taps.
const device = "/dev/net/tun"

// offload is what every tap supports since Linux 2.6.27.
const offload = ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6 | ethernet.ECN

// Tap implements ethernet.Link.
type Tap struct {
	Owner task.Owner // of the goroutines; set before Start

	name   string
	mtu    int
	queues []*queue
	stale  bool // waiting frames are to be dropped
}

// Open attaches to the tap of that name, or creates one that lasts until Close and sets
// it up; with an empty name the kernel chooses one. The tap has a queue each way for
// each of pairs. Creating needs CAP_NET_ADMIN, and so does an existing tap that belongs
// to another user.
func Open(name string, pairs int) (*Tap, error) {
	if len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("tap %s: the name is longer than %d bytes", name, unix.IFNAMSIZ-1)
	}
	t := &Tap{name: name}
	existed := name != "" && exists(name)
	for range pairs {
		q, err := t.attach(pairs > 1)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("tap %s: %w", name, explain(err, name, existed, pairs))
		}
		t.queues = append(t.queues, q)
	}
	err := t.interfaceRequest(unix.SIOCGIFMTU, func(r *unix.Ifreq) { t.mtu = int(r.Uint32()) })
	if err == nil && !existed {
		err = t.setUp()
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("tap %s: %w", t.name, err)
	}
	return t, nil
}

func exists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// explain adds advice to an error of attach.
func explain(err error, name string, existed bool, pairs int) error {
	multi := ""
	if pairs > 1 {
		multi = " multi_queue"
	}
	if name == "" {
		name = "tap0"
	}
	create := fmt.Sprintf("ip tuntap add dev %s mode tap%s user $USER && ip link set %s up", name, multi, name)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: load the kernel's module: modprobe tun", err)
	case errors.Is(err, unix.EPERM) && existed:
		return fmt.Errorf("%w: it belongs to another user; delete it, and as root: %s", err, create)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: have root create it once: %s", err, create)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another program uses it", err)
	case errors.Is(err, unix.EINVAL) && existed:
		return fmt.Errorf("%w: it is no tap with %d queues; delete it, and as root: %s", err, pairs, create)
	}
	return err
}

// attach opens one more queue of the tap; the first may create it.
func (t *Tap) attach(multi bool) (*queue, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open "+device, err)
	}
	r, err := unix.NewIfreq(t.name)
	if err == nil {
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if multi {
			flags |= unix.IFF_MULTI_QUEUE
		}
		r.SetUint16(flags)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, r))
	}
	if err == nil {
		t.name = r.Name()
		err = os.NewSyscallError("TUNSETVNETHDRSZ", unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, ethernet.HeaderSize))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newQueue(fd)
}

// interfaceRequest makes an ioctl request for the network interface.
func (t *Tap) interfaceRequest(request uint, result func(*unix.Ifreq)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(t.name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	result(r)
	if request == unix.SIOCGIFFLAGS { // result has changed them
		return os.NewSyscallError("SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r))
	}
	return nil
}

// setUp does `ip link set NAME up`.
func (t *Tap) setUp() error {
	return t.interfaceRequest(unix.SIOCGIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(r.Uint16() | unix.IFF_UP) })
}

// Name returns the interface's name.
func (t *Tap) Name() string { return t.name }

// Info implements ethernet.Link.
func (t *Tap) Info() ethernet.Info {
	return ethernet.Info{Pairs: len(t.queues), MTU: t.mtu, Offload: offload}
}

// Start implements ethernet.Link.
func (t *Tap) Start(g ethernet.Guest) error {
	for i, q := range t.queues {
		if t.stale {
			q.discard()
		}
		q.done.Owner = t.Owner
		q.start(func() bool { return g.Readable(i) })
	}
	t.stale = false
	return nil
}

// Discard implements ethernet.Link. The kernel keeps incoming frames, and Start drops
// them.
func (t *Tap) Discard() { t.stale = true }

// Stop implements ethernet.Link.
func (t *Tap) Stop() {
	for _, q := range t.queues {
		q.stop()
	}
}

// Resume implements ethernet.Link.
func (t *Tap) Resume(pair int) { t.queues[pair].resume() }

// Configure implements ethernet.Link.
func (t *Tap) Configure(m ethernet.Mode) error {
	flags := 0
	for _, f := range []struct {
		offload ethernet.Offload
		flag    int
	}{
		{ethernet.Checksum, unix.TUN_F_CSUM},
		{ethernet.TSO4, unix.TUN_F_TSO4},
		{ethernet.TSO6, unix.TUN_F_TSO6},
		{ethernet.ECN, unix.TUN_F_TSO_ECN},
	} {
		if m.Offload&f.offload != 0 {
			flags |= f.flag
		}
	}
	for i, q := range t.queues {
		if err := q.enable(i < m.Pairs); err != nil {
			return fmt.Errorf("tap %s: %w", t.name, err)
		}
	}
	// It applies to the interface, whichever queue sets it; a disabled queue cannot.
	if err := unix.IoctlSetInt(t.queues[0].fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("tap %s: %w", t.name, os.NewSyscallError("TUNSETOFFLOAD", err))
	}
	return nil
}

// Close detaches from the tap, which disappears if Open created it. The tap must be
// stopped.
func (t *Tap) Close() error {
	var errs []error
	for _, q := range t.queues {
		errs = append(errs, q.close())
	}
	return errors.Join(errs...)
}
