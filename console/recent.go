package console

// recentSize bounds the output that is kept while nobody looks.
const recentSize = 64 << 10

// recent holds the last output that nobody has seen, for the next one to come.
type recent struct{ b []byte }

func (r *recent) add(p []byte) {
	if len(p) >= recentSize {
		r.b = append(r.b[:0], p[len(p)-recentSize:]...)
		return
	}
	if over := len(r.b) + len(p) - recentSize; over > 0 {
		r.b = r.b[:copy(r.b, r.b[over:])]
	}
	r.b = append(r.b, p...)
}

// take empties the buffer.
func (r *recent) take() []byte {
	b := r.b
	r.b = nil
	return b
}
