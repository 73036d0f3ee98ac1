package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/devices/virtio/virtq"
)

// maxIO bounds one read or write. The guest is told it at INIT; it is also Linux's
// maximum.
const maxIO = 1 << 20

// scratch holds a copy of a request other than READ and WRITE, and its answer: the
// guest may change its own memory during a check.
type scratch struct {
	in  [maxIn]byte
	out [maxOut]byte

	// What go-fuse is given: parts of the two above.
	ins, outs [3][]byte
}

// A request is a chain whose header was read and, for READ and WRITE, the structure
// that follows it.
type request struct {
	queue *virtq.Queue
	chain *virtq.Chain

	// Of struct fuse_in_header.
	length, opcode uint32
	unique, node   uint64
	caller         fuse.Owner // owner of what the request creates

	// Of struct fuse_read_in and fuse_write_in.
	handle, off uint64
	size        uint32
	flags       uint32   // of WRITE
	front       [][]byte // of READ: room for the header of the answer
}

// parse reads and checks the header of a request and, for READ and WRITE, the
// structure that follows. If that completes the request, parse returns how many bytes
// of an answer it wrote. Without room for a header there is no answer, and nothing is
// done.
func (d *Device) parse(r *request) (n uint32, done bool) {
	var in [headerIn]byte
	c := r.chain
	total := c.ReadableLen()
	if !c.ReadFull(in[:]) {
		return d.refuse(r, fuse.EINVAL), true
	}
	r.length, r.opcode, r.unique, r.node = le.Uint32(in[0:]), le.Uint32(in[4:]), le.Uint64(in[8:]), le.Uint64(in[16:])
	r.caller = fuse.Owner{Uid: le.Uint32(in[24:]), Gid: le.Uint32(in[28:])}
	switch {
	case uint64(r.length) != total:
		return d.refuse(r, fuse.EINVAL), true
	case r.opcode == opForget || r.opcode == opBatchForget:
		d.forget(r)
		return 0, true
	case r.opcode == opInterrupt || r.opcode == opNotifyReply:
		return 0, true // nothing waits that could be interrupted, and no notification was sent
	case c.WritableLen() < headerOut:
		return 0, true
	case (r.opcode == opRead || r.opcode == opWrite) && !r.parseIO():
		return d.refuse(r, fuse.EINVAL), true
	}
	return 0, false
}

// ioIn is the size of what follows the header of READ and WRITE: their structures
// begin alike.
const ioIn = 40

// parseIO reads that structure. The rest of the chain is the buffers for the data.
func (r *request) parseIO() bool {
	var b [ioIn]byte
	c := r.chain
	if !c.ReadFull(b[:]) {
		return false
	}
	r.handle, r.off, r.size, r.flags = le.Uint64(b[0:]), le.Uint64(b[8:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	if r.size > maxIO {
		return false
	}
	if r.opcode == opWrite {
		return r.length == headerIn+ioIn+r.size && c.WritableLen() >= headerOut+writeOut
	}
	if r.length != headerIn+ioIn || uint64(r.size) > c.WritableLen()-headerOut {
		return false
	}
	r.front = c.CutFirst(headerOut)
	c.Writable = first(c.Writable, int(r.size))
	return true
}

// attemptBytes is the largest write that does not go to a worker: the requests behind
// it wait.
const attemptBytes = 64 << 10

// attempt does a request if it can be done soon.
func (d *Device) attempt(r *request, w *scratch) (n uint32, done bool) {
	switch r.opcode {
	case opRead:
		return d.tryRead(r)
	case opWrite:
		done = r.size <= attemptBytes && !d.files.Metered()
	case opInit, opDestroy, opFsync, opFsyncdir, opSyncfs, opFallocate, opCopyFileRange:
	default:
		done = true
	}
	if !done || !d.files.Quick() {
		return 0, false
	}
	return d.execute(r, w), true
}

// execute does a request, and waits for the host. It returns how many bytes of an
// answer it wrote.
func (d *Device) execute(r *request, w *scratch) uint32 {
	if r.opcode == opInit || r.opcode == opDestroy {
		return d.change(r, w)
	}
	d.session.RLock()
	defer d.session.RUnlock()
	switch {
	case r.opcode == opRead:
		n, s := d.files.ReadInto(r.handle, r.chain.Writable, r.off)
		return r.answerRead(n, s)
	case r.opcode == opWrite:
		return d.write(r)
	case r.opcode == opSyncfs:
		return d.refuse(r, d.files.SyncFS())
	case !known(r.opcode):
		return d.refuse(r, fuse.ENOSYS)
	}
	return d.call(r, w)
}

// refuse answers with a header only: an error, or success.
func (d *Device) refuse(r *request, s fuse.Status) uint32 {
	var b [headerOut]byte
	if r.chain.WritableLen() < headerOut {
		return 0
	}
	putHeader(b[:], headerOut, r.unique, s)
	r.chain.Write(b[:])
	return headerOut
}

// putHeader writes struct fuse_out_header.
func putHeader(b []byte, length int, unique uint64, s fuse.Status) {
	le.PutUint32(b[0:], uint32(length))
	le.PutUint32(b[4:], uint32(-s))
	le.PutUint64(b[8:], unique)
}

// maxForget bounds a batch.
const maxForget = 64 << 10

// forget does FORGET and BATCH_FORGET, which get no answer. An incomplete batch is
// dropped.
func (d *Device) forget(r *request) {
	d.session.RLock()
	defer d.session.RUnlock()
	var b [16]byte
	if r.opcode == opForget {
		if r.length == headerIn+8 && r.chain.ReadFull(b[:8]) {
			d.files.Forget(r.node, le.Uint64(b[:]))
		}
		return
	}
	if !r.chain.ReadFull(b[:8]) {
		return
	}
	count := le.Uint32(b[:])
	if count > maxForget || r.length != headerIn+8+16*count {
		return
	}
	for range count {
		r.chain.ReadFull(b[:])
		d.files.Forget(le.Uint64(b[0:]), le.Uint64(b[8:]))
	}
}

// tryRead reads what is in the host's cache.
func (d *Device) tryRead(r *request) (n uint32, done bool) {
	d.session.RLock()
	defer d.session.RUnlock()
	got, s, done := d.files.TryRead(r.handle, r.chain.Writable, r.off)
	if !done {
		return 0, false
	}
	return r.answerRead(got, s), true
}

// answerRead answers a read whose data is already in place.
func (r *request) answerRead(n int, s fuse.Status) uint32 {
	if !s.Ok() {
		n = 0
	}
	var out [headerOut]byte
	putHeader(out[:], headerOut+n, r.unique, s)
	spread(r.front, out[:])
	return uint32(headerOut + n)
}

const writeOut = 8 // struct fuse_write_out

// write writes straight from the guest's memory.
func (d *Device) write(r *request) uint32 {
	n, s := d.files.WriteFrom(r.handle, r.chain.Readable, r.off, r.flags&fuse.WRITE_KILL_SUIDGID != 0)
	if !s.Ok() {
		return d.refuse(r, s)
	}
	var out [headerOut + writeOut]byte
	putHeader(out[:], len(out), r.unique, s)
	le.PutUint32(out[headerOut:], uint32(n))
	r.chain.Write(out[:])
	return uint32(len(out))
}

// call makes go-fuse answer. The caller holds the session.
func (d *Device) call(r *request, w *scratch) uint32 {
	o := &ops[r.opcode]
	if r.length > maxIn {
		return d.refuse(r, fuse.Status(unix.E2BIG))
	}
	in := w.in[:r.length]
	r.putHeader(in)
	if !r.chain.ReadFull(in[headerIn:]) || !o.shaped(in[headerIn:]) {
		return d.refuse(r, fuse.EINVAL)
	}
	if s := r.hidden(in[headerIn+o.in:]); !s.Ok() {
		return d.refuse(r, s)
	}
	room := r.chain.WritableLen() - headerOut
	fixed, payload := o.answer(in, room)
	if uint64(fixed+payload) > room {
		return d.refuse(r, fuse.EINVAL)
	}
	return d.handle(r, w, in, fixed, payload)
}

// putHeader rebuilds struct fuse_in_header with the fields that are used: of the
// caller, user and group; no extensions were negotiated.
func (r *request) putHeader(b []byte) {
	clear(b[:headerIn])
	le.PutUint32(b[0:], r.length)
	le.PutUint32(b[4:], r.opcode)
	le.PutUint64(b[8:], r.unique)
	le.PutUint64(b[16:], r.node)
	le.PutUint32(b[24:], r.caller.Uid)
	le.PutUint32(b[28:], r.caller.Gid)
}

// answer returns the sizes of an answer, as go-fuse needs them. It reduces the size
// that the guest asks for, in the request too, to what fits here.
func (o *op) answer(in []byte, room uint64) (fixed, payload int) {
	switch {
	case o.sized > 0:
		wants := in[o.sized:][:4]
		if n := le.Uint32(wants); n > 0 {
			payload = int(min(n, maxPayload))
			le.PutUint32(wants, uint32(payload))
			return 0, payload
		}
		return o.out, 0
	case o.text > 0:
		return 0, int(min(room, uint64(o.text)))
	}
	return o.out, 0
}

// handle calls go-fuse, which writes the parts of the answer one after the other, and
// copies the answer to the guest.
func (d *Device) handle(r *request, w *scratch, in []byte, fixed, payload int) uint32 {
	args := headerIn + ops[r.opcode].in
	w.ins = [3][]byte{in[:headerIn], in[headerIn:args], in[args:]}
	clear(w.out[:headerOut+fixed])
	end := headerOut + fixed
	w.outs = [3][]byte{w.out[:headerOut], w.out[headerOut:end], w.out[end : end+payload]}
	outs := w.outs[:1]
	if fixed > 0 {
		outs = w.outs[:2]
	}
	if payload > 0 {
		outs = append(outs, w.outs[2])
	}
	_, s := d.server.HandleRequest(w.ins[:], outs)
	// The header says how long the answer is; it cannot exceed the space given.
	n := le.Uint32(w.out[:])
	if !s.Ok() || n < headerOut || int(n) > end+payload {
		return d.refuse(r, fuse.EIO)
	}
	r.chain.Write(w.out[:n])
	return n
}

// go-fuse has a node and a name of its own (fuse/poll.go), for its own mounts. It
// answers requests for them itself instead of passing them to the file system.
const (
	ownNode = 1<<64 - 1
	ownName = ".go-fuse-epoll-hack"
)

// hidden keeps a guest from using them.
func (r *request) hidden(names []byte) fuse.Status {
	if r.node == ownNode {
		return fuse.Status(unix.ESTALE)
	}
	if r.node == fuse.FUSE_ROOT_ID && ops[r.opcode].names > 0 && len(names) > len(ownName) && string(names[:len(ownName)+1]) == ownName+"\x00" {
		if r.opcode == opLookup {
			return fuse.ENOENT
		}
		return fuse.EPERM
	}
	return fuse.OK
}

// first returns the first n bytes of bufs, which must have that many.
func first(bufs [][]byte, n int) [][]byte {
	for i, b := range bufs {
		if n == 0 {
			return bufs[:i]
		}
		if n < len(b) {
			bufs[i] = b[:n]
			return bufs[:i+1]
		}
		n -= len(b)
	}
	return bufs
}

// spread copies b to bufs.
func spread(bufs [][]byte, b []byte) {
	for _, p := range bufs {
		b = b[copy(p, b):]
	}
}
