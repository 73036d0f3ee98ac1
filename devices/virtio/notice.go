package virtio

// A Notice tells the driver about changes of a device's configuration. If a change
// comes while the device is paused, or a restored device's configuration differs from
// the saved one, the driver is told on resume. The device calls the methods with its
// own lock held, and saves Due.
type Notice struct {
	// Due means that the driver is to be told, as soon as a driver that knew the old
	// configuration is running.
	Due  bool `json:",omitempty"`
	host Host // nil: stopped
}

// Start is called from the device's Start.
func (n *Notice) Start(h Host) {
	if n.host = h; n.Due {
		n.Changed()
	}
}

// Stop is called from the device's Stop.
func (n *Notice) Stop() { n.host = nil }

// Reset is called from the device's Reset. The next driver reads the configuration
// when it starts.
func (n *Notice) Reset() { n.Due = false }

// Changed says that the configuration has just changed.
func (n *Notice) Changed() {
	if n.Due = n.host == nil; !n.Due {
		n.host.ConfigChanged()
	}
}
