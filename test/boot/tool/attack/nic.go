package attack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Queues of a card with one pair, §5.1.2.
const (
	receiveQueue  = 0
	transmitQueue = 1
	controlQueue  = 2
)

// Feature bits, §5.1.3.
const (
	featCsum          = 1 << 0
	featMergeable     = 1 << 15
	featControls      = 1<<17 | 1<<18 | 1<<20 | 1<<23 | 1<<2 // VQ, RX, RX_EXTRA, MAC_ADDR, GUEST_OFFLOADS
	featHostOffloads  = featCsum | 1<<11 | 1<<12 | 1<<13     // TSO4, TSO6, ECN
	featGuestOffloads = 1<<1 | 1<<7 | 1<<8 | 1<<9
)

// Sizes of the headers of virtio (§5.1.6) and Ethernet.
const (
	headerLen   = 12
	ethernetLen = 14
)

// Where the receive queue and its buffers are.
const (
	atReceive       = 0x28000
	atReceiveDriver = atReceive + atDriver
	atReceiveDevice = atReceive + atDevice
	atReceived      = 0x180000

	receiveSize = 64 // of its ring
	receiveLen  = 2048
	receiveRoom = 16 // buffers at once
)

// gateway is the address that answers, in user mode.
var gateway = netip.MustParseAddr("10.0.2.2")

// nic is the network card, which must be in user mode. General cases abuse the transmit
// queue; its own cases abuse the other two as well.
type nic struct {
	received ring
	given    int // buffers given since the start
	seen     int
	asked    int // ARP requests made
}

func (*nic) find() (device, error) {
	return find("/sys/class/net/*", "no network card of virtio", func(dir string) bool {
		driver, _ := filepath.EvalSymlinks(filepath.Join(dir, "device", "driver"))
		return filepath.Base(driver) == "virtio_net"
	})
}

func (*nic) look(device) error         { return nil }
func (*nic) queues() (one, all uint32) { return transmitQueue, 3 }
func (*nic) hasStatus() bool           { return false }

// enable sets up the receive queue and gives it room. Its ring has the same format as
// the other.
func (k *nic) enable(d *driver) {
	k.place(d)
	for range receiveRoom {
		k.give(d)
	}
	d.port.notify(receiveQueue)
}

// place is enable without giving room.
func (k *nic) place(d *driver) {
	clear(d.mem.region[atReceive:atCanary])
	k.received = d.newRing(d.opt.packed, atReceive, atReceiveDriver, atReceiveDevice, receiveSize)
	k.given, k.seen = 0, 0
	d.port.selectQueue(receiveQueue)
	d.port.setSize(receiveSize)
	d.port.setRings(rings{d.mem.phys + atReceive, d.mem.phys + atReceiveDriver, d.mem.phys + atReceiveDevice})
	d.port.enable(1)
	d.port.selectQueue(d.queue)
}

// slot returns where buffer i is.
func slot(i int) uint64 { return atReceived + uint64(i%receiveSize)*receiveLen }

func (k *nic) give(d *driver) {
	k.received.add(writable(d.mem.phys+slot(k.given), receiveLen))
	k.given++
}

// request returns an ARP request. Its answer is ignored.
func (k *nic) request(d *driver) []buf { return frameBufs(d, k.arp()) }

// large returns a frame without a valid destination.
func (*nic) large(d *driver, n uint32) []buf {
	return []buf{d.header(0, 0), d.data(min(n, 60_000)), readable(d.mem.phys+atStatus, 1)}
}

// frameBufs puts a frame, after a header of zeroes, into three buffers.
func frameBufs(d *driver, f []byte) []buf {
	d.count++
	at := atData + uint64(d.count%64)*4096
	clear(d.mem.region[at:][:headerLen])
	n := copy(d.mem.region[at+headerLen:][:4096-headerLen], f)
	addr := d.mem.phys + at
	first := min(n, ethernetLen)
	return []buf{readable(addr, headerLen), readable(addr+headerLen, uint32(first)), readable(addr+headerLen+uint64(first), uint32(n-first))}
}

var (
	broadcast = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	ourMAC    = []byte{2, 0, 0, 0, 0, 7}
)

// arp returns an ARP request for the gateway, each time from another address.
func (k *nic) arp() []byte {
	k.asked++
	f := append(bytes.Clone(broadcast), ourMAC...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	f = append(append(f, ourMAC...), k.name()...)
	f = append(f, make([]byte, 6)...)
	return append(append(f, gateway.AsSlice()...), make([]byte, 18)...)
}

// name returns the sender address of the last request.
func (k *nic) name() []byte { return []byte{10, 0, 2, byte(16 + k.asked%200)} }

// good makes an ARP request and waits for the answer.
func (k *nic) good(d *driver) error {
	n := d.ring.used() + 1
	d.ring.add(k.request(d)...)
	d.kick()
	if err := d.judge(succeeds, n); err != nil {
		return err
	}
	for end := time.Now().Add(patience); !k.answered(d); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			return fmt.Errorf("no answer to an ARP request; the queue has given back %d of %d buffers", k.received.used(), k.given)
		}
	}
	return nil
}

// answered looks for the answer in what was received.
func (k *nic) answered(d *driver) (yes bool) {
	for ; k.seen < k.received.used(); k.seen++ {
		f := d.mem.region[slot(k.seen)+headerLen:][:42]
		yes = yes || f[12] == 8 && f[13] == 6 && f[21] == 2 && bytes.Equal(f[28:32], gateway.AsSlice()) && bytes.Equal(f[38:42], k.name())
		k.give(d)
		d.port.notify(receiveQueue)
	}
	return yes
}

// works sends a datagram through the kernel's driver, for which the kernel's stack must
// first resolve the gateway.
func (*nic) works(at device) error {
	if err := setAddress(at.name, netip.MustParseAddr("10.0.2.15")); err != nil {
		return err
	}
	c, err := net.Dial("udp", netip.AddrPortFrom(gateway, 9).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == gateway.String() && f[2] == "0x2" {
			return nil
		}
	}
	return errors.New("the gateway does not answer the kernel")
}

// setAddress makes the kernel use a card.
func setAddress(name string, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(addr.AsSlice()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
