//go:build race

package virtiotest

// raced says that the race detector is on. It also sees what a bad driver makes a
// device do to RAM, such as writing one buffer for two requests at once: those cases
// run without it.
const raced = true
