package fs

import "bytes"

// Opcodes, enum fuse_opcode.
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opFlush         = 25
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opNotifyReply   = 41
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
	opSyncfs        = 50
	opTmpfile       = 51
	opLast          = opTmpfile
)

const (
	headerIn  = 40 // struct fuse_in_header
	headerOut = 16 // struct fuse_out_header
)

// An op describes the layout of a request with one opcode. go-fuse trusts the lengths
// that it is given, so they are checked against this first.
type op struct {
	in, out int // sizes of the structures, without headers
	names   int // strings after the structure, each with a NUL
	value   int // most bytes after the strings

	// sized: the structure has a field at this offset that says how many bytes the
	// guest wants after out; text: it wants as many as there are.
	sized int
	text  int
}

// ops lists the opcodes that go-fuse answers. All others get ENOSYS, so that Linux
// does without: locks, which it then keeps itself, bmap, ioctl, poll, and everything
// newer.
var ops = [opLast + 1]op{
	opLookup:        {names: 1, out: 128},
	opGetattr:       {in: 16, out: 104},
	opSetattr:       {in: 88, out: 104},
	opReadlink:      {text: 4096},
	opSymlink:       {names: 2, out: 128},
	opMknod:         {in: 16, names: 1, out: 128},
	opMkdir:         {in: 8, names: 1, out: 128},
	opUnlink:        {names: 1},
	opRmdir:         {names: 1},
	opRename:        {in: 8, names: 2},
	opLink:          {in: 8, names: 1, out: 128},
	opOpen:          {in: 8, out: 16},
	opStatfs:        {out: 80},
	opRelease:       {in: 24},
	opFsync:         {in: 16},
	opSetxattr:      {in: 8, names: 1, value: 64 << 10},
	opGetxattr:      {in: 8, names: 1, out: 8, sized: 0x28},
	opListxattr:     {in: 8, out: 8, sized: 0x28},
	opRemovexattr:   {names: 1},
	opFlush:         {in: 24},
	opInit:          {in: initIn, out: 64},
	opOpendir:       {in: 8, out: 16},
	opReaddir:       {in: 40, sized: 0x38},
	opReleasedir:    {in: 24},
	opFsyncdir:      {in: 16},
	opCreate:        {in: 16, names: 1, out: 144},
	opFallocate:     {in: 32},
	opReaddirplus:   {in: 40, sized: 0x38},
	opRename2:       {in: 16, names: 2},
	opLseek:         {in: 24, out: 8},
	opCopyFileRange: {in: 56, out: 8},
	opTmpfile:       {in: 16, names: 1, out: 144},
}

const initIn = 64 // struct fuse_init_in as of 7.36; older ones are a prefix of it

// Limits of what goes through go-fuse.
const (
	maxString  = 4096     // PATH_MAX, for the text of a link
	maxPayload = 64 << 10 // of an answer: as much as an attribute has, and a fair part of a directory
	maxIn      = 72 << 10 // of a request: an attribute with its name
	maxOut     = 256 + maxPayload
)

// known reports whether go-fuse answers an opcode.
func known(opcode uint32) bool { return opcode <= opLast && ops[opcode] != op{} }

// shaped reports whether what follows the header of a request matches o.
func (o *op) shaped(body []byte) bool {
	if len(body) < o.in {
		return false
	}
	rest := body[o.in:]
	for range o.names {
		i := bytes.IndexByte(rest, 0)
		if i < 0 || i >= maxString {
			return false
		}
		rest = rest[i+1:]
	}
	return len(rest) <= o.value
}
