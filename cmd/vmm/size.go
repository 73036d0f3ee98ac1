package main

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// size is a flag's number of bytes with its unit: 512M, 2G. 0 needs no unit.
type size uint64

// units are powers of 1024: each one shifts by ten more bits.
const units = "KMGT"

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	t := strings.ToUpper(strings.TrimSpace(text))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "B"), "I") // MiB, MB: what people write
	unit := -1
	if t != "" {
		unit = strings.IndexByte(units, t[len(t)-1])
	}
	if unit < 0 {
		if n, err := strconv.ParseUint(t, 10, 64); err == nil && n == 0 {
			*s = 0
			return nil
		}
		return errors.New("has no unit; write it as 512M or 2G")
	}
	n, err := strconv.ParseUint(t[:len(t)-1], 10, 64)
	shift := 10 * (unit + 1)
	if err != nil || bits.Len64(n)+shift > 64 {
		return errors.New("is not a size; write it as 512M or 2G")
	}
	*s = size(n << shift)
	return nil
}

// String implements pflag.Value.
func (s *size) String() string {
	if *s == 0 {
		return "0"
	}
	n, unit := uint64(*s)>>10, 0
	for n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return fmt.Sprintf("%d%c", n, units[unit])
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }
