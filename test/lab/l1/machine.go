// Package l1 is the lab's host: a machine that QEMU emulates in software, including
// AMD-V, with the files of the outer host and a KVM that works as on hardware. It is
// named after its level: the outer host is L0, and its guests are L2.
package l1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"vmm/test/lab/qemu"
	"vmm/test/lab/wire"
)

// ErrLost means that L1 died or no longer gives a sign of life. The job is not to blame, and
// may run again on a new L1.
var ErrLost = errors.New("L1 is lost")

// How long L1 may be silent. Each is many times what a busy host needs.
const (
	bootLimit   = 120 * time.Second
	silentLimit = 45 * time.Second
	countLimit  = 10 * time.Minute // with Config.Count its second may take a minute
	closeLimit  = 10 * time.Second
	killLimit   = 30 * time.Second
)

// Config holds the options of L1.
type Config struct {
	CPUs   int    // 2 if 0
	Count  bool   // time inside is counted in instructions, a ns each
	Memory int    // in MiB; 8192 if 0
	TSC    bool   // its clock and KVM's use the TSC; otherwise they do without
	Out    string // folder of this host that jobs can write results to
	Log    string // file for L1's console output
}

// Machine is a running L1. It runs one job at a time.
type Machine struct {
	Up      wire.Up       // what it reported about itself
	silent  time.Duration // silentLimit, except in a test
	config  Config
	dir     string // temporary files
	qemu    *exec.Cmd
	ended   chan struct{} // closed when QEMU has ended
	stderr  bytes.Buffer  // of QEMU; read it after ended
	conn    net.Conn
	replies chan wire.Reply // closed when the connection is lost
	job     int             // number of the newest job; only Run changes it
	mu      sync.Mutex      // guards request
	request *json.Encoder
}

// Start boots L1. The caller closes it. It needs the go command and an installed QEMU; the
// kernel, and a newer QEMU, come from the cache or the network.
func Start(ctx context.Context, c Config) (*Machine, error) {
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.Memory == 0 {
		c.Memory = 8192
	}
	dir, err := os.MkdirTemp("", "vmm-lab-")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	silent := silentLimit
	if c.Count {
		silent = countLimit
	}
	m := &Machine{silent: silent, config: c, dir: dir, ended: make(chan struct{}), replies: make(chan wire.Reply, 16)}
	if err := m.boot(ctx); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Machine) boot(ctx context.Context) error {
	image, err := prepare(ctx, m.dir)
	if err != nil {
		return err
	}
	socket := filepath.Join(m.dir, "wire")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer listener.Close()
	program, err := qemu.Find(ctx)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := m.startQEMU(append(program.Argv, m.arguments(image, socket)...)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { m.kill() })
	defer stop()
	go func() {
		<-m.ended
		listener.Close()
	}()
	listener.SetDeadline(time.Now().Add(bootLimit))
	if m.conn, err = listener.Accept(); err != nil {
		return m.lost("QEMU did not connect")
	}
	m.request = json.NewEncoder(m.conn)
	go m.receive()
	select {
	case r, ok := <-m.replies:
		if ok && r.Up != nil {
			m.Up = *r.Up
			return nil
		}
		return m.lost("it ended while it booted")
	case <-time.After(bootLimit):
		return m.lost(fmt.Sprintf("not up after %v", bootLimit))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startQEMU starts QEMU so that it dies with this process.
func (m *Machine) startQEMU(argv []string) error {
	m.qemu = exec.Command(argv[0], argv[1:]...)
	m.qemu.Stdout, m.qemu.Stderr = &m.stderr, &m.stderr
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that forked ends, so that thread must not end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.qemu.Start()
		started <- err
		if err == nil {
			m.qemu.Wait()
		}
		close(m.ended)
	}()
	err := <-started
	if err != nil {
		m.qemu = nil
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// receive reads replies until the connection is lost.
func (m *Machine) receive() {
	defer close(m.replies)
	replies := json.NewDecoder(m.conn)
	for {
		var r wire.Reply
		if replies.Decode(&r) != nil {
			return
		}
		m.replies <- r
	}
}

func (m *Machine) send(r wire.Request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn.SetWriteDeadline(time.Now().Add(m.silent))
	if err := m.request.Encode(r); err != nil {
		return m.lost(err.Error())
	}
	return nil
}

// lost explains, as well as it can, how L1 was lost.
func (m *Machine) lost(why string) error {
	m.kill()
	if said := bytes.TrimSpace(m.stderr.Bytes()); len(said) > 0 {
		return fmt.Errorf("%w: %s; QEMU says: %s", ErrLost, why, said)
	}
	return fmt.Errorf("%w: %s; its console is in %s:\n%s", ErrLost, why, m.config.Log, tail(m.config.Log))
}

func (m *Machine) kill() {
	if m.qemu != nil {
		m.qemu.Process.Kill()
		<-m.ended
	}
}

// Close turns L1 off.
func (m *Machine) Close() error {
	if m.conn != nil {
		m.conn.Close() // the agent sees the end of the stream and powers off
		select {
		case <-m.ended:
		case <-time.After(closeLimit):
		}
	}
	m.kill()
	return os.RemoveAll(m.dir)
}

// tail returns the last lines of a file, for a message.
func tail(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	const most = 1500
	return bytes.TrimSpace(b[max(0, len(b)-most):])
}
