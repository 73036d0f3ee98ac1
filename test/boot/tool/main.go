// Tool runs inside the guest of a boot test:
//
//	tool print   prints a MiB of a known pattern
//	tool hash    reads a MiB from the console and prints its hash
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vmm/test/boot/pattern"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("tool:", err)
		os.Exit(1)
	}
}

func run(what string) error {
	if err := raw(); err != nil {
		return err
	}
	switch what {
	case "print":
		fmt.Print("MIB-BEGIN\r\n")
		if _, err := os.Stdout.Write(pattern.Bytes(pattern.MiB)); err != nil {
			return err
		}
		fmt.Print("MIB-END\r\n")
		return nil
	case "hash":
		fmt.Print("MIB-READY\r\n")
		h := sha256.New()
		if _, err := io.CopyN(h, os.Stdin, pattern.MiB); err != nil {
			return err
		}
		fmt.Printf("MIB-HASH %x\r\n", h.Sum(nil))
		return nil
	}
	return fmt.Errorf("no command %q", what)
}

// raw makes the console pass every byte as it is, and keep the sender waiting
// (CRTSCTS) while nobody reads.
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
