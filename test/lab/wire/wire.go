// Package wire defines what the lab's two ends exchange over one virtio serial port: a
// stream of JSON values, Requests one way, Replies the other. One job runs at a time.
package wire

import "time"

// Port is the name of the serial port.
const Port = "vmm.lab"

// Tags of the two 9p shares of L1.
const (
	RootTag = "root" // the host's file system, read-only
	OutTag  = "out"  // the folder for results
)

// Job is one command.
type Job struct {
	Name     string   // of the result; the base name of the command if empty
	Argv     []string // Argv[0] is looked up in the PATH of Env
	Dir      string   // current directory
	Env      []string // the whole environment
	Share    string   // absolute path at which the results folder appears
	Terminal *Size    // if not nil the command gets a terminal of this size
	Timeout  time.Duration
}

// Size is the size of a terminal, in characters.
type Size struct{ Rows, Cols uint16 }

// Request is a message from the host: a job's number and one more field.
type Request struct {
	Job      int    // the job it is about; L1 drops requests that are not about the newest
	Run      *Job   `json:",omitempty"`
	Input    []byte `json:",omitempty"` // for the job; the next comes after Taken
	InputEnd bool   `json:",omitempty"`
	Resize   *Size  `json:",omitempty"`
	Kill     bool   `json:",omitempty"` // the job and all that it started
}

// Reply is a message from L1: a job's number and one more field. A Reply without any other
// field is a sign of life, and comes every second.
type Reply struct {
	Job    int    // the job it is about; the host drops replies that are not about the newest
	Up     *Up    `json:",omitempty"` // the first reply
	Output []byte `json:",omitempty"` // of the job, or of its terminal if it has one
	Error  []byte `json:",omitempty"` // standard error of the job
	Taken  bool   `json:",omitempty"` // an Input has reached the job
	Exit   *Exit  `json:",omitempty"` // the job is over; all its output came before
}

// Up describes L1.
type Up struct {
	Release string        // kernel release
	Uptime  time.Duration // by its own clock
}

// Exit is how a job ended.
type Exit struct {
	Status int           // of the command; 128+n if signal n ended it, 127 if it could not start
	Took   time.Duration // by L1's clock
	Why    string        `json:",omitempty"` // if it could not start
}

// Heartbeat is the interval of L1's signs of life.
const Heartbeat = time.Second
