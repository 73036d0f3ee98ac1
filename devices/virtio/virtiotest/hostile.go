package virtiotest

// A table is a list of hostile cases: they run with the device started, one
// after the other, as one subtest.
type table struct {
	name  string
	cases func(s *suite) []hostile
}

var tables []table

// A hostile is what a bad driver does. After do, the device must reach what
// want says within the deadline, must not have written anything that was not
// given to it, and must work after a reset.
type hostile struct {
	name string
	do   func()
	want want
	free []span // what may be written besides the queues' device areas
}

type want int

const (
	harmless want = iota // nothing follows
	broken               // DEVICE_NEEDS_RESET
	ends                 // that, or something is used
)

func (s *suite) runTable(_ interface{}, _ table) {}
