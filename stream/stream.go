// Package stream is what a device that carries streams of bytes and its far end
// on the host agree on.
//
//	guest <--> device <--> Conn <--> a program of the host's
//
// A stream has two directions that end by themselves. Nothing here blocks: what
// cannot be done now is ErrAgain, and an Event tells when to try again.
package stream

import "errors"

// ErrAgain is what Read and Write return when they can do nothing, or nothing
// more, at the moment. An Event follows when that has changed.
var ErrAgain = errors.New("stream: not now")

// Event is what has become possible with a Conn. One that came without reason
// does no harm.
type Event uint8

// The events.
const (
	Readable Event = 1 << iota // there is something to read, or the end
	Writable                   // there is room again
	Gone                       // the program has left: what is written reaches nobody
)

// Conn is the host's end of a stream. Its owner calls one method at a time.
type Conn interface {
	// Read fills the front of bufs. The end is io.EOF.
	Read(bufs [][]byte) (int, error)
	// Write takes bytes from the front of bufs: all of them, or fewer and
	// ErrAgain. Any other error is for ever.
	Write(bufs [][]byte) (int, error)
	// Accept tells the program that the guest has taken its call, and the
	// number that stands for it in the guest.
	Accept(port uint32)
	// CloseRead and CloseWrite end one direction, Close both; after Close nothing
	// may be called but Close.
	CloseRead()
	CloseWrite()
	Close()
}

// A Watcher is told of a Conn's events, one at a time. It may be told of some
// from before Close afterwards.
type Watcher interface{ Ready(Event) }

// A Host is where the programs are.
type Host interface {
	// Serve says who takes calls; it comes before all else.
	Serve(Guest)
	// Dial connects to whoever takes the guest's calls to a port. It does not
	// wait: nobody there is an error. w may be told of events before Dial returns.
	Dial(port uint32, w Watcher) (Conn, error)
}

// A Guest takes calls of the host's programs.
type Guest interface {
	// Call is a call to a port of the guest. It returns who watches c, or nil if
	// the guest does not take it: then c stays the caller's.
	Call(c Conn, port uint32) Watcher
}
