package console

// command is the action that a typed byte requests.
type command byte

const (
	cmdSend    command = iota // the byte goes to the guest
	cmdSwallow                // nothing, or not yet
	cmdQuit
	cmdBreak
	cmdDetach
	cmdHelp
)

const escapeKey = 'a' & 0x1f // Ctrl-a

const (
	helpText = "\r\n" +
		"Ctrl-a x       end the guest, and leave\r\n" +
		"Ctrl-a b       send a break (Linux: the next key is a SysRq)\r\n" +
		"Ctrl-a Ctrl-a  send Ctrl-a\r\n" +
		"Ctrl-a h or ?  this help\r\n"
	detachText = "" +
		"Ctrl-a d       leave; the guest goes on\r\n"
)

// escape finds the commands among typed bytes. The keys are QEMU's and, as in QEMU, an
// unknown key is swallowed together with the Ctrl-a before it.
type escape struct{ armed bool }

func (e *escape) key(b byte) command {
	if !e.armed {
		if b == escapeKey {
			e.armed = true
			return cmdSwallow
		}
		return cmdSend
	}
	e.armed = false
	switch b {
	case escapeKey:
		return cmdSend
	case 'x':
		return cmdQuit
	case 'b':
		return cmdBreak
	case 'd':
		return cmdDetach
	case 'h', '?':
		return cmdHelp
	}
	return cmdSwallow
}
