package blk

// Image is the host's side of a disk. Its methods are called on any goroutine,
// several at once. Ranges lie inside the image and are multiples of 512 bytes. The
// buffers are guest memory: an Image must not keep them.
//
// An error that is errors.ErrUnsupported becomes VIRTIO_BLK_S_UNSUPP, any other
// VIRTIO_BLK_S_IOERR.
type Image interface {
	Size() int64 // bytes, a multiple of 512
	ReadOnly() bool

	// Topology returns the sizes of the logical and the physical block and of the
	// smallest and the best transfer, in bytes. The last two are 0 if unknown.
	Topology() (logical, physical, minIO, optIO int)

	ReadvAt(bufs [][]byte, off int64) error // all bytes, or an error
	WritevAt(bufs [][]byte, off int64) error

	// Flush makes all writes that have returned survive a crash of the host.
	Flush() error

	Discard(off, n int64) error
	WriteZeroes(off, n int64, mayUnmap bool) error
}

// A Trier is an Image that can do some transfers at once. If done is false, the
// transfer would have to wait, or failed in a way that the other method will report,
// too. Part of it may have been made.
type Trier interface {
	TryReadvAt(bufs [][]byte, off int64) (done bool, err error)
	TryWritevAt(bufs [][]byte, off int64) (done bool, err error)
}
