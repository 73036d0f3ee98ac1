//go:build race

package usernet

// Less than without the race detector, which checks every memory access.
const (
	bulk = 2 << 20
	many = 150
)
