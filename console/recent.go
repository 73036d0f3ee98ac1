package console

// recentSize bounds the output that is kept while it is not read.
const recentSize = 64 << 10

// recent holds the latest unread output for the next reader.
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

// take returns the contents and empties the buffer.
func (r *recent) take() []byte {
	b := r.b
	r.b = nil
	return b
}
