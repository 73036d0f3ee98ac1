// Package hostsock is the host's end of a socket device: Unix sockets, as in
// Firecracker.
//
// A host program calls the guest by connecting to PATH and writing "CONNECT PORT\n".
// Once a guest program has accepted the call, it receives "OK NUMBER\n", and then what
// that program sends; else the connection ends. A guest call to PORT connects to
// PATH_PORT.
package hostsock

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmm/eventfd"
	"vmm/hostfile"
	"vmm/logline"
	"vmm/stream"
	"vmm/task"
	"vmm/unixsock"
)

const (
	// maxPath leaves room for the port suffix.
	maxPath = unixsock.MaxPath - len("_4294967295")
	// largeRoom is the buffer to ask the kernel for, for data that a program has not
	// read; it makes a stream a quarter faster. The kernel gives at most twice
	// net.core.wmem_max, usually 416 KiB. Connections after the first largeConns have
	// twice smallRoom.
	largeRoom  = 512 << 10
	smallRoom  = 32 << 10
	largeConns = 64
	// maxGreeting is how many callers may be sending their first line.
	maxGreeting = 1024
	// MaxDescriptors is the most that a Host uses: a third for connections, and two
	// thirds for callers, which have two each while they become connections.
	MaxDescriptors = 3 * maxGreeting
	// acceptPause is how long callers wait after accept fails.
	acceptPause = time.Second
	// logPause is the time between two log lines about that, or about failed calls.
	logPause = time.Minute
	// greetingLimit is how long a greeting may take.
	greetingLimit = 5 * time.Second
)

// Host is a path and its connections. It implements stream.Host.
type Host struct {
	Owner task.Owner // of the goroutines; set before Serve
	// Most is how many descriptors connections and callers may have; set before Serve.
	// 0 means MaxDescriptors.
	Most int

	path     string
	name     string // of path within its directory
	log      *slog.Logger
	waits    *logline.Line // callers must wait
	lost     *logline.Line // a call is lost
	l        *unixsock.Listener
	guest    stream.Guest
	epoll    int
	stop     *eventfd.FD   // for poll
	done     chan struct{} // closed by Close
	greeting chan struct{} // one element for each caller that greets
	work     task.Group

	mu     sync.Mutex
	conns  map[uint64]*conn      // guarded by mu
	greets map[net.Conn]struct{} // guarded by mu
	last   uint64                // guarded by mu; ID of the newest conn
	closed bool                  // guarded by mu
}

// New returns the host behind path, which takes no calls yet. held has the directory of
// path; nil resolves it now. Later changes of names above it have no effect. A nil log
// discards.
func New(path string, held *hostfile.Set, log *slog.Logger) (*Host, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if path == "" {
		return nil, errors.New("the path is empty")
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("%s: the path is longer than %d bytes; use a shorter one", path, maxPath)
	}
	h := &Host{
		waits: logline.New(log, logPause), lost: logline.New(log, logPause),
		path: path, log: log, epoll: -1, done: make(chan struct{}),
		conns: map[uint64]*conn{}, greets: map[net.Conn]struct{}{},
	}
	if err := h.listen(held); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := h.open(); err != nil {
		h.l.Close()
		h.free()
		return nil, err
	}
	return h, nil
}

// listen makes the socket at path.
func (h *Host) listen(held *hostfile.Set) (err error) {
	dir, name, err := held.OpenParent(h.path)
	if err != nil {
		return errors.Unwrap(err) // the caller adds the path
	}
	h.name = name
	h.l, err = unixsock.ListenIn(dir, name)
	return err
}

// open makes the epoll and event descriptors for poll.
func (h *Host) open() (err error) {
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if h.stop, err = eventfd.New(); err != nil {
		return err
	}
	return h.watch(unix.EPOLL_CTL_ADD, h.stop.Fd(), 0, unix.EPOLLIN)
}

func (h *Host) free() {
	if h.stop != nil {
		h.stop.Close()
	}
	if h.epoll >= 0 {
		unix.Close(h.epoll)
	}
}

// Serve implements stream.Host.
func (h *Host) Serve(g stream.Guest) {
	h.guest, h.work.Owner = g, h.Owner
	if h.Most == 0 {
		h.Most = MaxDescriptors
	}
	h.greeting = make(chan struct{}, min(h.Most/3, maxGreeting))
	h.work.Go(h.poll)
	h.work.Go(h.accept)
}

// Close ends all connections and removes the socket.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	close(h.done)
	for c := range h.greets {
		c.Close()
	}
	h.mu.Unlock()
	h.stop.Signal()
	err := h.l.Close()
	h.work.Wait()
	for _, c := range h.all() {
		c.Close()
	}
	h.free()
	return err
}

func (h *Host) all() (list []*conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		list = append(list, c)
	}
	return list
}

// watch is epoll_ctl. ID 0 is h.stop's.
func (h *Host) watch(op, fd int, id uint64, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(h.epoll, op, fd, &e))
}

// poll tells the owners of connections of events. It blocks in the kernel, not in Go's
// poller: the guest waits for it with each packet.
func (h *Host) poll() {
	events := make([]unix.EpollEvent, 64)
	var y eventfd.Yielder
	for {
		y.Yield()
		n, err := unix.EpollWait(h.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			h.log.Error("vsock: no more events", "path", h.path, "err", err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			if id == 0 {
				return
			}
			if c, w := h.find(id); c != nil {
				c.ready(w, e.Events)
			}
		}
	}
}

// find returns a connection, nil if it is closed.
func (h *Host) find(id uint64) (*conn, stream.Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.conns[id]; c != nil {
		return c, c.watcher
	}
	return nil, nil
}

// Dial implements stream.Host. A program with a full backlog refuses. So does anything
// but a socket of this user or root with a single name.
func (h *Host) Dial(port uint32, w stream.Watcher) (stream.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := h.connect(fd, port); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s_%d: %w", h.path, port, err)
	}
	c, err := h.add(fd)
	if err != nil {
		return nil, err
	}
	if err := c.start(w); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connect connects a socket to the program that listens for calls to port.
func (h *Host) connect(fd int, port uint32) error {
	to, err := h.l.Find(fmt.Sprintf("%s_%d", h.name, port))
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: hostfile.Name(to)})
}

var errTooMany = errors.New("too many connections for the process's limit of descriptors")

// add takes over fd, even if it fails.
func (h *Host) add(fd int) (*conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		unix.Close(fd)
		return nil, net.ErrClosed
	}
	if len(h.conns) >= h.Most/3 {
		unix.Close(fd)
		return nil, errTooMany
	}
	room := largeRoom
	if len(h.conns) >= largeConns {
		room = smallRoom
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, room)
	h.last++
	c := &conn{h: h, id: h.last, fd: fd}
	h.conns[c.id] = c
	return c, nil
}
