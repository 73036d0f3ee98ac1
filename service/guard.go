package service

import (
	"bufio"
	"net"
	"net/http"

	"vmm/api"
	"vmm/task"
)

// guarded answers for h if h panics. A request that only reads must not end the guest.
// Any other may have left the guest half changed, so its panic goes to Options.Owner.
func (s *server) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrote := &answered{ResponseWriter: w}
		defer task.Owner(func(p *task.PanicError) {
			if p.Value == http.ErrAbortHandler {
				panic(p.Value)
			}
			if r.Method != http.MethodGet {
				s.o.Owner.Go(func() { panic(p) })
			} else {
				s.log.Error("internal error of vmm: please report it", "request", r.Pattern, "panic", p.Value, "stack", string(p.Stack))
			}
			if wrote.begun {
				panic(http.ErrAbortHandler) // so that half an answer is not taken for a whole one
			}
			write(w, http.StatusInternalServerError, api.Error{Error: "internal error; see the guest's log"})
		}).Rescue()
		h.ServeHTTP(wrote, r)
	})
}

// answered is a ResponseWriter that knows whether it has been used.
type answered struct {
	http.ResponseWriter
	begun bool
}

func (a *answered) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Hijack implements http.Hijacker.
func (a *answered) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.begun = true
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController flush.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }
