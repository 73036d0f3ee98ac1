//go:build race

package usernet

// Less, where every access to memory is looked at.
const (
	bulk = 2 << 20
	many = 150
)
