package net

import (
	"encoding/binary"

	"vmm/devices/virtio"
	"vmm/ethernet"
)

// Feature bits, §5.1.3.
const (
	featureChecksum      = 1 << 0  // VIRTIO_NET_F_CSUM
	featureGuestChecksum = 1 << 1  // VIRTIO_NET_F_GUEST_CSUM
	featureGuestOffloads = 1 << 2  // VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
	featureMTU           = 1 << 3  // VIRTIO_NET_F_MTU
	featureMAC           = 1 << 5  // VIRTIO_NET_F_MAC
	featureGuestTSO4     = 1 << 7  // VIRTIO_NET_F_GUEST_TSO4
	featureGuestTSO6     = 1 << 8  // VIRTIO_NET_F_GUEST_TSO6
	featureGuestECN      = 1 << 9  // VIRTIO_NET_F_GUEST_ECN
	featureHostTSO4      = 1 << 11 // VIRTIO_NET_F_HOST_TSO4
	featureHostTSO6      = 1 << 12 // VIRTIO_NET_F_HOST_TSO6
	featureHostECN       = 1 << 13 // VIRTIO_NET_F_HOST_ECN
	featureMergeable     = 1 << 15 // VIRTIO_NET_F_MRG_RXBUF
	featureStatus        = 1 << 16 // VIRTIO_NET_F_STATUS
	featureControl       = 1 << 17 // VIRTIO_NET_F_CTRL_VQ
	featureControlRX     = 1 << 18 // VIRTIO_NET_F_CTRL_RX
	featureControlRXMore = 1 << 20 // VIRTIO_NET_F_CTRL_RX_EXTRA
	featureMultiQueue    = 1 << 22 // VIRTIO_NET_F_MQ
	featureControlMAC    = 1 << 23 // VIRTIO_NET_F_CTRL_MAC_ADDR
)

// guestOffloads and hostOffloads map features to offloads.
var (
	guestOffloads = map[uint64]ethernet.Offload{featureGuestChecksum: ethernet.Checksum, featureGuestTSO4: ethernet.TSO4, featureGuestTSO6: ethernet.TSO6, featureGuestECN: ethernet.ECN}
	hostOffloads  = map[uint64]ethernet.Offload{featureChecksum: ethernet.Checksum, featureHostTSO4: ethernet.TSO4, featureHostTSO6: ethernet.TSO6, featureHostECN: ethernet.ECN}
)

// bits returns the features of those offloads that are in o.
func bits(table map[uint64]ethernet.Offload, o ethernet.Offload) (features uint64) {
	for bit, offload := range table {
		if o&offload != 0 {
			features |= bit
		}
	}
	return features
}

// offload is the inverse of bits. A feature that requires another counts only if the
// other is set (§5.1.3.1).
func offload(table map[uint64]ethernet.Offload, features uint64) (o ethernet.Offload) {
	for bit, offload := range table {
		if features&bit != 0 {
			o |= offload
		}
	}
	if o&ethernet.Checksum == 0 {
		return 0
	}
	if o&(ethernet.TSO4|ethernet.TSO6) == 0 {
		o &^= ethernet.ECN
	}
	return o
}

// The device's configuration, struct virtio_net_config, §5.1.4.
const (
	configMAC      = 0
	configStatus   = 6
	configMaxPairs = 8
	configMTU      = 10
	configSize     = 12

	statusLinkUp = 1 // VIRTIO_NET_S_LINK_UP
)

var le = binary.LittleEndian

func features(info ethernet.Info) uint64 {
	f := uint64(featureMAC | featureMergeable | featureStatus | featureControl | featureControlRX | featureControlRXMore | featureControlMAC)
	f |= bits(guestOffloads, info.Offload) | bits(hostOffloads, info.Offload)
	if info.Offload != 0 {
		f |= featureGuestOffloads
	}
	if info.Pairs > 1 {
		f |= featureMultiQueue
	}
	if info.MTU != 0 {
		f |= featureMTU
	}
	return f
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c [configSize]byte
	mac := d.filter.address()
	copy(c[configMAC:], mac[:])
	if d.up.Load() {
		c[configStatus] = statusLinkUp
	}
	le.PutUint16(c[configMaxPairs:], uint16(d.info.Pairs))
	le.PutUint16(c[configMTU:], uint16(d.info.MTU))
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. A modern driver sets its MAC address with a
// command (§5.1.4.1).
func (*Device) WriteConfig(uint64, []byte) {}

var _ virtio.Device = (*Device)(nil)
