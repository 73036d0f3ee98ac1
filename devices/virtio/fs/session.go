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

// What of the protocol is used besides what go-fuse does by itself, FUSE_INIT
// flags. HANDLE_KILLPRIV_V2 says that nobody gets rights by a write, which spares
// the guest a request for each; the file system must keep to it.
const wanted = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_ASYNC_DIO | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_HANDLE_KILLPRIV_V2

// unwanted is what go-fuse would accept: it needs a kernel that has the host's
// descriptors.
const unwanted = fuse.CAP_PASSTHROUGH

// Protocol versions: a major number has all that is compatible, and virtio-fs
// came with this minor one.
const (
	major    = 7
	minMinor = 31
)

// begin has nothing of a session before. The caller has the device alone.
func (d *Device) begin() {
	d.init = nil
	d.server = fuse.NewProtocolServer(d.files, &fuse.MountOptions{
		MaxWrite:             maxIO,
		MaxBackground:        64,
		ExtraCapabilities:    wanted,
		DisabledCapabilities: unwanted,
		// A guest could fill a log, and its bugs are none of the host's.
		Logger:       log.New(io.Discard, "", 0),
		PanicHandler: d.panicked,
	})
}

// Reset implements virtio.Resetter: a guest that starts anew knows nothing.
func (d *Device) Reset() {
	d.session.Lock()
	defer d.session.Unlock()
	d.begin()
	d.files.Reset()
}

// change does INIT and DESTROY. Both leave nothing of a session before: a guest
// that mounts again does not reset the device in between.
func (d *Device) change(r *request, w *scratch) uint32 {
	d.session.Lock()
	defer d.session.Unlock()
	if r.opcode == opDestroy {
		d.begin()
		d.files.Reset()
		return d.refuse(r, fuse.OK)
	}
	// What an older driver does not send is 0. go-fuse would read it all the same.
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

// acceptable says whether a request for INIT is of a version that is spoken here.
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

// Load implements virtio.Saver. The bytes are foreign.
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
