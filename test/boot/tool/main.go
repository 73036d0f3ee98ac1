// Tool runs inside the guest of a boot test:
//
//	tool print N  prints N bytes of a known pattern
//	tool hash N   reads N bytes from the console and prints their hash
//	tool memory   prints how much memory there is
//	tool receive ADDRESS  takes a connection and prints the hash of its data
//	tool send ADDRESS N   sends N bytes of the pattern
//	tool vsock-...        talks to the host over vsock: see overVsock
//	tool share DIR DIR    uses a shared folder, and a read-only one
//	tool size N   prints the terminal's size, and at its next N changes
//	tool port PATH N  sends N bytes back to a port
//	tool clocks   prints the time, forever
//	tool complaints  prints messages of the kernel's watchdogs
//	tool work     keeps the devices busy; package work has its flags
//	tool attack   abuses a virtio disk; package attack has its flags
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmm/test/boot/pattern"
	"vmm/test/boot/tool/attack"
	"vmm/test/boot/tool/work"
)

func main() {
	if err := command(os.Args[1], os.Args[2:]); err != nil {
		fmt.Println("tool:", err)
		os.Exit(1)
	}
}

func command(what string, args []string) error {
	switch {
	case what == "attack":
		return attack.Run(args)
	case what == "work":
		return work.Run(args)
	case what == "clocks":
		return tellClocks()
	case what == "complaints":
		return complaints()
	case strings.HasPrefix(what, "vsock-"):
		return overVsock(what, args)
	case what == "share" && len(args) == 2:
		return share(args[0], args[1])
	case what == "size" && len(args) == 1:
		return size(args[0])
	case what == "port" && len(args) == 2:
		return sendBack(args[0], args[1])
	case what == "receive" && len(args) == 1:
		return receive(args[0])
	case what == "send" && len(args) == 2:
		return send(args[0], args[1])
	}
	n := 0
	if len(args) > 0 {
		n, _ = strconv.Atoi(args[0])
	}
	return run(what, n)
}

func memory() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	fmt.Printf("MEMORY %d MiB\n", uint64(info.Totalram)*uint64(info.Unit)>>20)
	return nil
}

func run(what string, n int) error {
	if what == "memory" {
		return memory()
	}
	if err := raw(); err != nil {
		return err
	}
	switch what {
	case "print":
		fmt.Print("DATA-BEGIN\r\n")
		if _, err := os.Stdout.Write(pattern.Bytes(n)); err != nil {
			return err
		}
		fmt.Print("DATA-END\r\n")
		return nil
	case "hash":
		fmt.Print("DATA-READY\r\n")
		h := sha256.New()
		if _, err := io.CopyN(h, os.Stdin, int64(n)); err != nil {
			return err
		}
		fmt.Printf("DATA-HASH %x\r\n", h.Sum(nil))
		return nil
	}
	return fmt.Errorf("no command %q", what)
}

// raw makes the console pass every byte unchanged, and keep the sender waiting
// (CRTSCTS) while no program reads.
func raw() error {
	t, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag |= unix.CRTSCTS
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(0, unix.TCSETSW, t)
}
