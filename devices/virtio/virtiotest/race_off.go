//go:build !race

package virtiotest

const raced = false
