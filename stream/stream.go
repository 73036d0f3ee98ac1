// Package stream is the interface between a device that carries byte streams and its
// far end on the host.
//
//	guest <--> device <--> Conn <--> a program of the host's
//
// A stream has two directions that end independently. Nothing here blocks: what cannot
// be done now returns ErrAgain, and an Event tells when to try again.
package stream

import "errors"

// ErrAgain is returned by Read and Write when they can do nothing, or nothing more,
// now. An Event follows when that changes.
var ErrAgain = errors.New("stream: not now")

// Event tells what has become possible with a Conn. A spurious one does no harm.
type Event uint8

// The events.
const (
	Readable Event = 1 << iota // there is data to read, or the end
	Writable                   // there is room again
	Gone                       // the program has left: data written is lost
)

// Conn is the host's end of a stream. Its owner calls one method at a time.
type Conn interface {
	// Read fills the front of bufs. The end is io.EOF.
	Read(bufs [][]byte) (int, error)
	// Write takes bytes from the front of bufs: all of them, or fewer and ErrAgain. Any
	// other error is permanent.
	Write(bufs [][]byte) (int, error)
	// Accept tells the program that the guest has accepted its call, and the number
	// that stands for it in the guest.
	Accept(port uint32)
	// CloseRead and CloseWrite end one direction, Close both; after Close only Close
	// may be called.
	CloseRead()
	CloseWrite()
	Close()
}

// A Watcher is told of a Conn's events, one at a time. After Close it may still be told
// of earlier events.
type Watcher interface{ Ready(Event) }

// A Host is where the programs are.
type Host interface {
	// Serve sets the guest that takes calls; it is called first.
	Serve(Guest)
	// Dial connects to the program that takes the guest's calls to a port. It does not
	// wait: no program there is an error. w may be told of events before Dial returns.
	Dial(port uint32, w Watcher) (Conn, error)
}

// A Guest takes calls from host programs.
type Guest interface {
	// Call is a call to a guest port. It returns the watcher of c, or nil if the guest
	// does not accept the call: then the caller keeps c.
	Call(c Conn, port uint32) Watcher
}
