// Package pc holds the small devices that a PC's kernel expects: clock, reset, power,
// and two ways to report the guest's end.
//
// They sit at I/O ports. What they report to the machine goes through the functions
// that they are created with. Those run on a vCPU's thread in the middle of an
// access, so they must not block, and a guest may cause any number of calls.
package pc

// each calls f for every byte of an access, as the ISA bus splits a wide access.
func each(off uint64, p []byte, f func(off uint64, b *byte)) {
	for i := range p {
		f(off+uint64(i), &p[i])
	}
}
