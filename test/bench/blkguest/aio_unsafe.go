package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is a context of Linux's asynchronous I/O (io_submit(2)), which costs the guest
// less than one thread for each operation in flight. Its system calls are raw: nothing
// else in this process needs to run meanwhile.
type queue struct {
	context uintptr // aio_context_t
	blocks  []iocb  // one for each slot
	events  []event
	done    []int
	memory  []byte
}

// iocb is struct iocb of linux/aio_abi.h, on a little-endian machine.
type iocb struct {
	data   uint64
	_      uint32 // key
	_      uint32 // rwFlags
	opcode uint16
	_      int16 // priority
	fd     uint32
	buffer uint64
	bytes  uint64
	offset int64
	_      uint64
	_      uint32 // flags
	_      uint32 // resfd
}

// event is struct io_event.
type event struct {
	data      uint64
	object    uint64
	res, res2 int64
}

const (
	cmdPread  = 0 // IOCB_CMD_PREAD
	cmdPwrite = 1 // IOCB_CMD_PWRITE
)

// newQueue makes a queue with the given number of slots, each with a buffer of size
// bytes, page-aligned for O_DIRECT.
func newQueue(fd, slots, size int, write bool) (*queue, error) {
	memory, err := unix.Mmap(-1, 0, slots*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	for i := range memory {
		memory[i] = byte(i * 7)
	}
	q := &queue{blocks: make([]iocb, slots), events: make([]event, slots), done: make([]int, 0, slots), memory: memory}
	for i := range q.blocks {
		q.blocks[i] = iocb{data: uint64(i), fd: uint32(fd), opcode: cmdPread, bytes: uint64(size),
			buffer: uint64(uintptr(unsafe.Pointer(&memory[i*size])))}
		if write {
			q.blocks[i].opcode = cmdPwrite
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_IO_SETUP, uintptr(slots), uintptr(unsafe.Pointer(&q.context)), 0); errno != 0 {
		return nil, os.NewSyscallError("io_setup", errno)
	}
	return q, nil
}

func (q *queue) close() {
	unix.RawSyscall(unix.SYS_IO_DESTROY, q.context, 0, 0)
	unix.Munmap(q.memory)
}

// submit starts the operation of a slot at offset.
func (q *queue) submit(slot int, offset int64) error {
	b := &q.blocks[slot]
	b.offset = offset
	if n, _, errno := unix.RawSyscall(unix.SYS_IO_SUBMIT, q.context, 1, uintptr(unsafe.Pointer(&b))); errno != 0 || n != 1 {
		return os.NewSyscallError("io_submit", errno)
	}
	return nil
}

// wait returns the slots whose operations have ended, at least one. The result is valid
// until the next call.
func (q *queue) wait() ([]int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, q.context, 1, uintptr(len(q.events)), uintptr(unsafe.Pointer(&q.events[0])), 0, 0)
		if errno == unix.EINTR {
			continue // a signal of Go's runtime
		}
		if errno != 0 {
			return nil, os.NewSyscallError("io_getevents", errno)
		}
		q.done = q.done[:0]
		for _, e := range q.events[:n] {
			if want := q.blocks[e.data].bytes; e.res != int64(want) {
				return nil, fmt.Errorf("operation at %d: result %d, want %d bytes", q.blocks[e.data].offset, e.res, want)
			}
			q.done = append(q.done, int(e.data))
		}
		return q.done, nil
	}
}
