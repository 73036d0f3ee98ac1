package main

import (
	"fmt"
	"strconv"
	"strings"

	"vmm/machine"
)

// volumes is the flag --volume, which may be repeated:
//
//	HOST:GUEST[:OPTION][,OPTION ...]
//
// as in docker, except that HOST is always a directory: there are no named volumes. A
// colon or a comma in a path is doubled.
type volumes []machine.Share

const volumeSyntax = "must be HOST:GUEST or HOST:GUEST:ro, such as ./src:/mnt"

// Set implements pflag.Value.
func (v *volumes) Set(text string) error {
	options := splitComma(text)
	words := splitAt(options[0], ':')
	options = options[1:]
	s := machine.Share{Dir: words[0]}
	switch {
	case len(words) < 2 || len(words) > 3 || s.Dir == "" || words[1] == "":
		return fmt.Errorf("%s", volumeSyntax)
	case words[1][0] != '/':
		return fmt.Errorf("the guest's path %q does not begin with /; it %s", words[1], volumeSyntax)
	case len(words) == 3:
		options = append(words[2:], options...)
	}
	s.Mount = words[1]
	for _, word := range options {
		if err := setVolumeOption(&s, word); err != nil {
			return err
		}
	}
	if s.Size > 0 {
		s.Quota = machine.NewQuota(s.Size)
	}
	*v = append(*v, s)
	return nil
}

func setVolumeOption(s *machine.Share, word string) error {
	key, value, _ := strings.Cut(word, "=")
	switch {
	case word == "ro" || word == "rw":
		s.ReadOnly = word == "ro"
	case key == "rate" || key == "size":
		var n size
		if err := n.Set(value); err != nil {
			return fmt.Errorf("%s=%s: %w", key, value, err)
		}
		if n == 0 {
			return fmt.Errorf("%s=%s: must be more than nothing; leave it out for no bound", key, value)
		}
		if key == "rate" {
			s.BytesPerSecond = uint64(n)
		} else {
			s.Size = uint64(n)
		}
	case key == "owner":
		return setVolumeOwner(s, value)
	default:
		known := []string{"ro", "rw", "rate", "size", "owner"}
		if near := nearest(known, key); near != "" && near != word {
			return fmt.Errorf("unknown option %q; did you mean %s? (a colon or a comma in a path is written twice)", word, near)
		}
		return fmt.Errorf("unknown option %q; there are ro, rw, rate, size and owner (and a colon or a comma in a path is written twice)", word)
	}
	return nil
}

// setVolumeOwner reads who owns this user's files in the guest: host, UID or
// UID:GID.
func setVolumeOwner(s *machine.Share, value string) error {
	s.HostOwner, s.UID, s.GID = value == "host", 0, 0
	if s.HostOwner {
		return nil
	}
	uid, gid, both := strings.Cut(value, ":")
	if !both {
		gid = uid
	}
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if err1 != nil || err2 != nil || max(u, g) == 1<<32-1 {
		return fmt.Errorf("owner=%s: must be host, or a user of the guest by number, UID or UID:GID, such as owner=1000:1000", value)
	}
	s.UID, s.GID = uint32(u), uint32(g)
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
