package virtiotest

import (
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
)

// EchoID is not an ID of the specification.
const EchoID virtio.ID = 63

// EchoQueues and EchoSize are the number and the size of an Echo's queues.
const (
	EchoQueues = 2
	EchoSize   = 64
)

// EchoFeatures are the features of an Echo. They have no effect.
const EchoFeatures = 1<<0 | 1<<3 | 1<<33

// Echo is the simplest device with slow requests: it returns the bytes of a request,
// on other goroutines and in any order, unless it is held. It also reports violations
// of the contract of virtio.Device.
type Echo struct {
	Bad  atomic.Pointer[string] // a violation of the contract
	Fail atomic.Bool            // makes Start fail
	Host virtio.Host            // from Start to Stop

	mu     sync.Mutex
	config [8]byte       // guarded by mu
	gate   chan struct{} // guarded by mu; closed means open

	started atomic.Bool
	jobs    chan echoJob
	wg      sync.WaitGroup
	busy    atomic.Int64 // chains
}

type echoJob struct {
	q *virtq.Queue
	c *virtq.Chain
}

// NewEcho returns an Echo that is not held.
func NewEcho() *Echo {
	e := &Echo{gate: make(chan struct{})}
	close(e.gate)
	return e
}

// Hold makes requests wait until release is called. release may be called twice.
func (e *Echo) Hold() (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gate := make(chan struct{})
	e.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

// Busy returns how many requests were taken but not answered.
func (e *Echo) Busy() int { return int(e.busy.Load()) }

// ID implements virtio.Device.
func (*Echo) ID() virtio.ID { return EchoID }

// Features implements virtio.Device.
func (*Echo) Features() uint64 { return EchoFeatures }

// QueueSizes implements virtio.Device.
func (*Echo) QueueSizes() []uint16 { return []uint16{EchoSize, EchoSize} }

// ReadConfig implements virtio.Device.
func (e *Echo) ReadConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(p, e.config[off:])
	}
}

// WriteConfig implements virtio.Device.
func (e *Echo) WriteConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(e.config[off:], p)
	}
}

// Start implements virtio.Device.
func (e *Echo) Start(_ uint64, h virtio.Host) error {
	if e.started.Swap(true) {
		e.bad("Start of a started device")
	}
	e.Host = h
	e.jobs = make(chan echoJob, EchoQueues*EchoSize)
	for range 2 {
		e.wg.Go(e.work)
	}
	if e.Fail.Load() {
		return errors.New("echo: told to fail")
	}
	return nil
}

// Serve implements virtio.Device.
func (e *Echo) Serve(_ int, q *virtq.Queue) {
	if !e.started.Load() {
		e.bad("Serve of a stopped device")
	}
	for c := q.Pop(); c != nil; c = q.Pop() {
		e.busy.Add(1)
		e.jobs <- echoJob{q, c}
	}
}

func (e *Echo) work() {
	for j := range e.jobs {
		e.mu.Lock()
		gate := e.gate
		e.mu.Unlock()
		<-gate
		n := uint32(0)
		for len(j.c.Readable) > 0 && len(j.c.Writable) > 0 {
			k := j.c.Write(j.c.Readable[0])
			n += uint32(k)
			j.c.Readable[0] = j.c.Readable[0][k:]
			if len(j.c.Readable[0]) == 0 {
				j.c.Readable = j.c.Readable[1:]
			}
		}
		e.busy.Add(-1)
		j.q.Push(j.c, n)
	}
}

// Stop implements virtio.Device.
func (e *Echo) Stop() {
	if !e.started.Swap(false) {
		e.bad("Stop of a stopped device")
	}
	if e.busy.Load() != 0 {
		e.bad("Stop with requests under way")
	}
	close(e.jobs)
	e.wg.Wait()
}

// Save implements virtio.Saver.
func (e *Echo) Save() ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return json.Marshal(e.config)
}

// Load implements virtio.Saver.
func (e *Echo) Load(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return json.Unmarshal(b, &e.config)
}

func (e *Echo) bad(what string) { e.Bad.CompareAndSwap(nil, &what) }
