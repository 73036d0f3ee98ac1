package vsock

import "sync"

// A backlog is what the guest has sent and the host has not taken yet. It uses memory
// only while it is not empty.
type backlog struct {
	size  int     // most bytes that it holds
	block *[]byte // a ring buffer; nil while empty
	first int     // index of the first byte
	n     int     // bytes in it
}

// Unused blocks, by size.
var largeBlocks, smallBlocks = blocks(largeBuffer), blocks(smallBuffer)

func blocks(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

func (b *backlog) pool() *sync.Pool {
	if b.size == largeBuffer {
		return largeBlocks
	}
	return smallBlocks
}

// add stores what follows the first skip bytes of bufs. There must be room.
func (b *backlog) add(bufs [][]byte, skip int) {
	if b.block == nil {
		b.block = b.pool().Get().(*[]byte)
	}
	circle := *b.block
	for _, p := range bufs {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		for p, skip = p[skip:], 0; len(p) > 0; {
			at := (b.first + b.n) % b.size
			k := copy(circle[at:min(b.size, at+b.size-b.n)], p)
			p, b.n = p[k:], b.n+k
		}
	}
}

// front appends the stored bytes to bufs, as one or two slices.
func (b *backlog) front(bufs [][]byte) [][]byte {
	if b.n == 0 {
		return bufs
	}
	circle := *b.block
	end := b.first + b.n
	if end <= b.size {
		return append(bufs, circle[b.first:end])
	}
	return append(bufs, circle[b.first:], circle[:end-b.size])
}

// drop removes the first k bytes.
func (b *backlog) drop(k int) {
	b.first, b.n = (b.first+k)%b.size, b.n-k
	if b.n == 0 && b.block != nil {
		b.pool().Put(b.block)
		b.block, b.first = nil, 0
	}
}
