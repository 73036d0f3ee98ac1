// Shelld gives the host a shell on a vsock port, without a password: who can
// connect to the machine's socket is who may.
//
//	shelld [PORT]    1023 by default
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/mdlayher/vsock"

	"vmm/guest/shell"
)

func main() {
	port := uint64(1023)
	var err error
	if len(os.Args) > 1 {
		port, err = strconv.ParseUint(os.Args[1], 10, 32)
	}
	if err == nil {
		err = serve(uint32(port))
	}
	fmt.Fprintln(os.Stderr, "shelld:", err)
	os.Exit(1)
}

func serve(port uint32) error {
	l, err := vsock.Listen(port, nil)
	if err != nil {
		return err
	}
	return shell.Serve(l, nil, "/bin/sh")
}
