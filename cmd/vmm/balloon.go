package main

import "errors"

// balloon is the flag --balloon: a size, or off.
type balloon struct {
	size size
	off  bool
}

// Set implements pflag.Value.
func (b *balloon) Set(text string) error {
	if text == "off" {
		*b = balloon{off: true}
		return nil
	}
	var s size
	if s.Set(text) != nil {
		return errors.New("is a size such as 64M, or off")
	}
	*b = balloon{size: s}
	return nil
}

// String implements pflag.Value.
func (b *balloon) String() string {
	if b.off {
		return "off"
	}
	return b.size.String()
}

// Type implements pflag.Value.
func (*balloon) Type() string { return "balloon" }
