package console

import (
	"io"
	"sync"
)

// typedSize bounds what is typed ahead of the guest. It is large enough that Ctrl-a x
// works however long a guest has taken no input. Beyond it the terminal has to wait.
const typedSize = 64 << 10

// breakMark stands for a break among the typed bytes, where it keeps its place.
const breakMark = 0x100

// keyboard reads a terminal, ahead of the guest, and finds the commands.
type keyboard struct {
	opts Options
	help func()

	mu     sync.Mutex
	change sync.Cond // of everything below
	typed  []uint16
	err    error // from read; no more will be typed
}

func newKeyboard(o Options, help func()) *keyboard {
	k := &keyboard{opts: o, help: help}
	k.change.L = &k.mu
	return k
}

// run reads until read fails.
func (k *keyboard) run(read func([]byte) (int, error)) {
	var esc escape
	buf := make([]byte, 1024)
	for {
		n, err := read(buf)
		for _, b := range buf[:n] {
			switch esc.key(b) {
			case cmdSend:
				k.put(uint16(b))
			case cmdBreak:
				k.put(breakMark)
			case cmdHelp:
				k.help()
			case cmdQuit:
				call(k.opts.Quit)
			case cmdDetach:
				if k.opts.Detach != nil {
					k.stop(io.EOF) // after what was typed
					k.opts.Detach()
					return
				}
			}
		}
		if err != nil {
			k.stop(err)
			return
		}
	}
}

func call(f func()) {
	if f != nil {
		f()
	}
}

func (k *keyboard) put(v uint16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.typed) >= typedSize && k.err == nil {
		k.change.Wait()
	}
	k.typed = append(k.typed, v)
	k.change.Broadcast()
}

// stop makes Read return err after what was typed.
func (k *keyboard) stop(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	k.change.Broadcast()
}

// close makes Read return at once.
func (k *keyboard) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err, k.typed = io.EOF, nil
	k.change.Broadcast()
}

// Read returns what was typed up to the next break, or performs the break.
func (k *keyboard) Read(p []byte) (int, error) {
	for len(p) > 0 {
		n, err := k.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		call(k.opts.Break)
	}
	return 0, nil
}

// take returns what was typed up to the next break, or 0 if the break is next.
func (k *keyboard) take(p []byte) (n int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.typed) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		k.change.Wait()
	}
	for n < min(len(p), len(k.typed)) && k.typed[n] != breakMark {
		p[n] = byte(k.typed[n])
		n++
	}
	k.typed = k.typed[:copy(k.typed, k.typed[max(n, 1):])] // 0: take the mark
	k.change.Broadcast()
	return n, nil
}
