package main

import (
	"fmt"
	"strings"

	"vmm/machine"
)

// volumes is the flag --volume, which may be given several times:
//
//	HOST:GUEST[:ro|:rw]
//
// as docker has it, but that HOST is always a directory: there are no volumes
// with names. A colon in a path is written twice.
type volumes []machine.Share

const volumeSyntax = "must be HOST:GUEST or HOST:GUEST:ro, such as ./src:/mnt"

// Set implements pflag.Value.
func (v *volumes) Set(text string) error {
	words := splitAt(text, ':')
	s := machine.Share{Dir: words[0]}
	switch {
	case len(words) < 2 || len(words) > 3 || s.Dir == "" || words[1] == "":
		return fmt.Errorf("%s", volumeSyntax)
	case len(words) == 3 && words[2] != "ro" && words[2] != "rw":
		return fmt.Errorf("unknown option %q; there are ro and rw (and a colon in a path is written twice)", words[2])
	case words[1][0] != '/':
		return fmt.Errorf("the guest's path %q does not begin with /; it %s", words[1], volumeSyntax)
	}
	s.Mount, s.ReadOnly = words[1], len(words) == 3 && words[2] == "ro"
	*v = append(*v, s)
	return nil
}

// String implements pflag.Value.
func (v *volumes) String() string {
	var dirs []string
	for _, s := range *v {
		dirs = append(dirs, s.Dir+":"+s.Mount)
	}
	return strings.Join(dirs, " ")
}

// Type implements pflag.Value.
func (*volumes) Type() string { return "volume" }
