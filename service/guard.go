package service

import (
	"bufio"
	"net"
	"net/http"

	"vmm/api"
	"vmm/task"
)

// guarded answers for h where that has a bug. To look at the guest must not end it;
// a request that changes it may have left it half changed, and does.
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
				panic(http.ErrAbortHandler) // so that half an answer is not taken for one
			}
			write(w, http.StatusInternalServerError, api.Error{Error: "internal error; see the guest's log"})
		}).Rescue()
		h.ServeHTTP(wrote, r)
	})
}

// answered is a ResponseWriter that knows whether it was used.
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

// Unwrap is for http.ResponseController, which flushes.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }
