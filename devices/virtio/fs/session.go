package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The FUSE_INIT flags used besides those go-fuse handles itself. HANDLE_KILLPRIV_V2
// says that a write gives no one rights, which saves the guest a request for each
// write. The file system must comply.
const wanted = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_ASYNC_DIO | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_HANDLE_KILLPRIV_V2

// unwanted is a flag that go-fuse would accept, but that needs a kernel that has the
// host's descriptors.
const unwanted = fuse.CAP_PASSTHROUGH

// Protocol versions: the same major number means compatible, and virtio-fs came with
// this minor one.
const (
	major    = 7
	minMinor = 31
)

// begin drops everything of a previous session. The caller has exclusive use of the
// device.
func (d *Device) begin() {
	d.init = nil
	d.server = fuse.NewProtocolServer(d.files, &fuse.MountOptions{
		MaxWrite:             maxIO,
		MaxBackground:        64,
		ExtraCapabilities:    wanted,
		DisabledCapabilities: unwanted,
		// A guest could fill a log, and its bugs do not concern the host.
		Logger:       log.New(io.Discard, "", 0),
		PanicHandler: d.panicked,
	})
}

// Reset implements virtio.Resetter. A guest that starts anew knows nothing.
func (d *Device) Reset() {
	d.session.Lock()
	defer d.session.Unlock()
	d.begin()
	d.files.Reset()
}

// change does INIT and DESTROY. Both drop everything of a previous session: a guest
// that mounts again does not reset the device in between.
func (d *Device) change(r *request, w *scratch) uint32 {
	d.session.Lock()
	defer d.session.Unlock()
	if r.opcode == opDestroy {
		d.begin()
		d.files.Reset()
		return d.refuse(r, fuse.OK)
	}
	// What an older driver does not send is 0. go-fuse would read it anyway.
	in := w.in[:headerIn+initIn]
	clear(in[headerIn:])
	r.putHeader(in)
	size := int(min(r.length, headerIn+initIn))
	if size < headerIn+16 || !r.chain.ReadFull(in[headerIn:size]) {
		return d.refuse(r, fuse.EINVAL)
	}
	le.PutUint32(in, uint32(len(in)))
	if !acceptable(in) {
		return d.refuse(r, fuse.Status(unix.EPROTO))
	}
	if r.chain.WritableLen() < uint64(headerOut+ops[opInit].out) {
		return d.refuse(r, fuse.EINVAL)
	}
	d.begin()
	d.files.Reset()
	d.init = append([]byte(nil), in...)
	return d.handle(r, w, in, ops[opInit].out, 0)
}

// acceptable reports whether an INIT request has a supported version.
func acceptable(in []byte) bool {
	return le.Uint32(in[headerIn:]) == major && le.Uint32(in[headerIn+4:]) >= minMinor
}

// snapshot is the state of a session.
type snapshot struct {
	Init  []byte `json:",omitempty"` // the request
	Files json.RawMessage
}

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	files, err := d.files.Save()
	if err != nil {
		return nil, err
	}
	return json.Marshal(snapshot{d.init, files})
}

// Load implements virtio.Saver. The bytes are untrusted.
func (d *Device) Load(b []byte) error {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("file system device: %w", err)
	}
	if s.Init != nil && (len(s.Init) != headerIn+initIn || le.Uint32(s.Init[4:]) != opInit || !acceptable(s.Init)) {
		return errors.New("file system device: the state has no INIT that makes sense")
	}
	d.session.Lock()
	defer d.session.Unlock()
	d.begin()
	if err := d.files.Load(s.Files); err != nil {
		return err
	}
	if d.init = s.Init; d.init != nil {
		var header [headerOut]byte
		var out [64]byte
		if _, status := d.server.HandleRequest([][]byte{d.init}, [][]byte{header[:], out[:]}); !status.Ok() {
			return fmt.Errorf("file system device: INIT: %v", status)
		}
	}
	return nil
}
