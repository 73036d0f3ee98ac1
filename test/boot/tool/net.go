package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"strconv"

	"vmm/test/boot/pattern"
)

// receive takes one connection and prints the hash of its data.
func receive(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("NET-READY")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return err
	}
	fmt.Printf("NET-HASH %x\n", h.Sum(nil))
	return nil
}

// send sends n bytes of the known pattern.
func send(address, n string) error {
	count, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	if _, err := c.Write(pattern.Bytes(count)); err != nil {
		return err
	}
	return c.Close()
}
