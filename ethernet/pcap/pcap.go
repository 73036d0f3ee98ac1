// Package pcap records the frames of a link in a file that tcpdump and Wireshark
// read: the classic format, with nanoseconds
// (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html).
//
// Frames are recorded as the card and the link exchange them: an offloaded checksum is
// missing, and a frame may be a whole burst of segments.
package pcap

import (
	"bufio"
	"encoding/binary"
	"io"
	"log/slog"
	"sync"
	"time"

	"vmm/ethernet"
	"vmm/logline"
	"vmm/task"
)

const (
	magic        = 0xa1b23c4d // of files with nanoseconds
	linkEthernet = 1          // LINKTYPE_ETHERNET
	snapLength   = 1 << 18

	// bufferSize exceeds any record, so each write has whole records.
	bufferSize = 1 << 17
	// flushEvery is the longest time that a frame is held back from the file.
	flushEvery = time.Second
	// sayAgain is the least time between two log lines.
	sayAgain = time.Minute
)

// Link is a link whose frames are recorded.
type Link struct {
	ethernet.Link
	Owner task.Owner // of the timer; set before the first frame
	lost  *logline.Line
	again *logline.Line

	mu     sync.Mutex
	to     io.Writer
	w      *bufio.Writer // guarded by mu; writes to to
	frames int           // guarded by mu; in w
	missed int           // guarded by mu; frames lost since the last successful write
	dirty  bool          // guarded by mu; a flush is scheduled
	now    func() time.Time
}

// New returns link with its frames recorded in w, a *File after Begin, which the caller
// owns. If a write fails, for example because the disk is full, its frames are lost
// with a line in log; recording resumes when writes succeed again.
func New(link ethernet.Link, w io.Writer, log *slog.Logger) *Link {
	return &Link{
		Link: link, lost: logline.New(log, sayAgain), again: logline.New(log, sayAgain),
		to: w, w: bufio.NewWriterSize(w, bufferSize), now: time.Now,
	}
}

var le = binary.LittleEndian

// Send implements ethernet.Link.
func (l *Link) Send(pair int, h *ethernet.Header, frame [][]byte) error {
	err := l.Link.Send(pair, h, frame)
	if err != ethernet.ErrAgain {
		n := 0
		for _, b := range frame {
			n += len(b)
		}
		l.record(frame, n)
	}
	return err
}

// Receive implements ethernet.Link.
func (l *Link) Receive(pair int, h *ethernet.Header, bufs [][]byte) (int, error) {
	n, err := l.Link.Receive(pair, h, bufs)
	if err == nil {
		l.record(bufs, n)
	}
	return n, err
}

// record writes n bytes of bufs.
func (l *Link) record(bufs [][]byte, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if recordHeader+n > l.w.Available() {
		l.flush()
	}
	now := l.now()
	var h [recordHeader]byte
	le.PutUint32(h[0:], uint32(now.Unix()))
	le.PutUint32(h[4:], uint32(now.Nanosecond()))
	le.PutUint32(h[8:], uint32(n))
	le.PutUint32(h[12:], uint32(n))
	l.w.Write(h[:])
	for _, b := range bufs {
		b = b[:min(len(b), n)]
		n -= len(b)
		l.w.Write(b)
	}
	l.frames++
	if !l.dirty {
		l.dirty = true
		l.Owner.AfterFunc(flushEvery, l.Flush)
	}
}

// Flush writes frames that are still held back. A timer calls it within a second of a
// frame; it must also be called before w is closed.
func (l *Link) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = false
	l.flush()
}

// flush is called with mu held.
func (l *Link) flush() {
	if l.frames == 0 {
		return
	}
	err := l.w.Flush()
	if err != nil {
		l.missed += l.frames
		l.lost.Warn("frames are not recorded until that is mended", "err", err)
		l.w.Reset(l.to)
	} else if l.missed > 0 {
		l.again.Warn("frames are recorded again", "frames lost", l.missed)
		l.missed = 0
	}
	l.frames = 0
}
