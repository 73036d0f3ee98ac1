package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/devices/virtio/virtq"
)

// maxIO bounds one read or write. It is what the guest is told at INIT, and the
// most that Linux has.
const maxIO = 1 << 20

// scratch is what a request that is not data is copied to, and its answer built
// in: the guest may change its own memory while a check is not done with it.
type scratch struct {
	in  [maxIn]byte
	out [maxOut]byte

	// What go-fuse is given: pieces of the two above.
	ins, outs [3][]byte
}

// A header is what is used of struct fuse_in_header.
type header struct {
	length, opcode uint32
	unique, node   uint64
}

// answer does the request in c and returns how many bytes of an answer it wrote.
// Without room for a header there is no answer, and nothing is done.
func (d *Device) answer(c *virtq.Chain, w *scratch) uint32 {
	in := w.in[:headerIn]
	total := c.ReadableLen()
	if !c.ReadFull(in) {
		return d.refuse(c, 0, fuse.EINVAL)
	}
	h := header{le.Uint32(in[0:]), le.Uint32(in[4:]), le.Uint64(in[8:]), le.Uint64(in[16:])}
	switch {
	case uint64(h.length) != total:
		return d.refuse(c, h.unique, fuse.EINVAL)
	case h.opcode == opForget || h.opcode == opBatchForget:
		d.forget(&h, c)
		return 0
	case h.opcode == opInterrupt || h.opcode == opNotifyReply:
		return 0 // nothing waits that could be interrupted, and nothing was asked
	case c.WritableLen() < headerOut:
		return 0
	case h.opcode == opInit || h.opcode == opDestroy:
		return d.change(&h, c, w)
	}
	d.session.RLock()
	defer d.session.RUnlock()
	switch {
	case h.opcode == opRead:
		return d.read(&h, c)
	case h.opcode == opWrite:
		return d.write(&h, c)
	case h.opcode == opSyncfs:
		return d.refuse(c, h.unique, d.files.SyncFS())
	case !known(h.opcode):
		return d.refuse(c, h.unique, fuse.ENOSYS)
	}
	return d.call(&h, c, w)
}

// refuse answers with a header and nothing behind it: an error, or that all is
// well.
func (d *Device) refuse(c *virtq.Chain, unique uint64, s fuse.Status) uint32 {
	var b [headerOut]byte
	if c.WritableLen() < headerOut {
		return 0
	}
	putHeader(b[:], headerOut, unique, s)
	c.Write(b[:])
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

// forget does FORGET and BATCH_FORGET, which are not answered. A batch that is
// not whole is dropped.
func (d *Device) forget(h *header, c *virtq.Chain) {
	d.session.RLock()
	defer d.session.RUnlock()
	var b [16]byte
	if h.opcode == opForget {
		if h.length == headerIn+8 && c.ReadFull(b[:8]) {
			d.files.Forget(h.node, le.Uint64(b[:]))
		}
		return
	}
	if !c.ReadFull(b[:8]) {
		return
	}
	count := le.Uint32(b[:])
	if count > maxForget || h.length != headerIn+8+16*count {
		return
	}
	for range count {
		c.ReadFull(b[:])
		d.files.Forget(le.Uint64(b[0:]), le.Uint64(b[8:]))
	}
}

// ioIn is what is behind the header of READ and WRITE: struct fuse_read_in and
// fuse_write_in begin alike.
const ioIn = 40

// read reads straight into the guest's memory.
func (d *Device) read(h *header, c *virtq.Chain) uint32 {
	var b [ioIn]byte
	if h.length != headerIn+ioIn || !c.ReadFull(b[:]) {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	size := le.Uint32(b[16:])
	if size > maxIO || uint64(size) > c.WritableLen()-headerOut {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	front := c.CutFirst(headerOut)
	n, s := d.files.ReadInto(le.Uint64(b[0:]), first(c.Writable, int(size)), le.Uint64(b[8:]))
	if !s.Ok() {
		n = 0
	}
	var out [headerOut]byte
	putHeader(out[:], headerOut+n, h.unique, s)
	spread(front, out[:])
	return uint32(headerOut + n)
}

// write writes straight from the guest's memory.
func (d *Device) write(h *header, c *virtq.Chain) uint32 {
	const room = headerOut + 8 // struct fuse_write_out
	var b [ioIn]byte
	if !c.ReadFull(b[:]) || c.WritableLen() < room {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	size := le.Uint32(b[16:])
	if size > maxIO || uint64(h.length) != headerIn+ioIn+uint64(size) {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	n, s := d.files.WriteFrom(le.Uint64(b[0:]), c.Readable, le.Uint64(b[8:]))
	if !s.Ok() {
		return d.refuse(c, h.unique, s)
	}
	var out [room]byte
	putHeader(out[:], room, h.unique, s)
	le.PutUint32(out[headerOut:], uint32(n))
	c.Write(out[:])
	return room
}

// call has go-fuse answer. The caller holds the session.
func (d *Device) call(h *header, c *virtq.Chain, w *scratch) uint32 {
	o := &ops[h.opcode]
	if h.length > maxIn {
		return d.refuse(c, h.unique, fuse.Status(unix.E2BIG))
	}
	in := w.in[:h.length]
	clear(in[36:headerIn]) // total_extlen: no extension was negotiated
	if !c.ReadFull(in[headerIn:]) || !o.shaped(in[headerIn:]) {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	if s := hidden(h, in[headerIn+o.in:]); !s.Ok() {
		return d.refuse(c, h.unique, s)
	}
	fixed, payload := o.answer(in, c.WritableLen()-headerOut)
	if uint64(fixed+payload) > c.WritableLen()-headerOut {
		return d.refuse(c, h.unique, fuse.EINVAL)
	}
	return d.handle(h, c, w, in, fixed, payload)
}

// answer returns the sizes of an answer, as go-fuse must be given them. What the
// guest wants at most is cut, in the request too, to what it can be given here.
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

// handle calls go-fuse, whose pieces of an answer lie one behind the other, and
// copies that to the guest.
func (d *Device) handle(h *header, c *virtq.Chain, w *scratch, in []byte, fixed, payload int) uint32 {
	args := headerIn + ops[h.opcode].in
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
	// The header says how long the answer is, and no more was there to fill.
	n := le.Uint32(w.out[:])
	if !s.Ok() || n < headerOut || int(n) > end+payload {
		return d.refuse(c, h.unique, fuse.EIO)
	}
	c.Write(w.out[:n])
	return n
}

// go-fuse has a node and a name of its own (fuse/poll.go), for when it mounts:
// whoever names them is answered by it and not by the file system.
const (
	ownNode = 1<<64 - 1
	ownName = ".go-fuse-epoll-hack"
)

// hidden keeps a guest from them.
func hidden(h *header, names []byte) fuse.Status {
	if h.node == ownNode {
		return fuse.Status(unix.ESTALE)
	}
	if h.node == fuse.FUSE_ROOT_ID && ops[h.opcode].names > 0 && len(names) > len(ownName) && string(names[:len(ownName)+1]) == ownName+"\x00" {
		if h.opcode == opLookup {
			return fuse.ENOENT
		}
		return fuse.EPERM
	}
	return fuse.OK
}

// first returns the first n bytes of bufs, which has as many.
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
