//go:build !race

package usernet

const (
	bulk = 64 << 20 // bytes each way
	many = 1000     // connections at once
)
