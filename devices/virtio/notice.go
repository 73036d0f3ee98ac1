package virtio

// A Notice has the driver hear of changes of a device's configuration. One that
// comes while the device is paused, or is put in place of one that was saved, is
// told on resume. The device calls its methods with a lock of its own held, and
// saves Due.
type Notice struct {
	// Due says that the driver is to be told, as soon as there is one that knew
	// the configuration of before.
	Due  bool `json:",omitempty"`
	host Host // nil: stopped
}

// Start is for the device's Start.
func (n *Notice) Start(h Host) {
	if n.host = h; n.Due {
		n.Changed()
	}
}

// Stop is for the device's Stop.
func (n *Notice) Stop() { n.host = nil }

// Reset is for the device's Reset: the next driver reads the configuration when it
// starts.
func (n *Notice) Reset() { n.Due = false }

// Changed says that the configuration has just changed.
func (n *Notice) Changed() {
	if n.Due = n.host == nil; !n.Due {
		n.host.ConfigChanged()
	}
}
