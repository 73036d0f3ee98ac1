//go:build race

package virtiotest

// raced says that the race detector watches. It sees what a bad driver makes a
// device do to RAM, too, such as to write one buffer for two requests at once:
// those cases run without it.
const raced = true
