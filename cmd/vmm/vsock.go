package main

import (
	"fmt"
	"strconv"
	"strings"

	"vmm/machine"
)

// vsock is the flag --vsock: PATH[,cid=N].
type vsock struct{ config *machine.Vsock }

// Set implements pflag.Value.
func (v *vsock) Set(text string) error {
	words := splitComma(text)
	c := &machine.Vsock{Path: words[0]}
	if c.Path == "" {
		return fmt.Errorf("has no path; write it as PATH or PATH,cid=N")
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		if key != "cid" {
			return fmt.Errorf("unknown option %q; there is cid", word)
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("cid=%s: must be a number from %d on", value, machine.DefaultCID)
		}
		c.CID = uint32(n)
	}
	v.config = c
	return nil
}

// String implements pflag.Value.
func (v *vsock) String() string {
	if v.config == nil {
		return ""
	}
	return v.config.Path
}

// Type implements pflag.Value.
func (*vsock) Type() string { return "socket" }
