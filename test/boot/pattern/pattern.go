// Package pattern is what the guest prints and the test expects.
package pattern

import "fmt"

// Bytes returns n bytes of lines that each tell where they belong.
func Bytes(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%015d\n", i)
	}
	return b[:n]
}
