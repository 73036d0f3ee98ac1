package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"vmm/api"
	"vmm/roster"
)

// Killed is the reason in the End of a guest whose process ended without recording one.
const Killed = "killed"

// List returns the guests of this host, including ended ones, as they last described
// themselves. It asks none of them, so a guest that hangs does not matter. A guest with
// a damaged record does not hide the others: only its name is returned.
func List(r *roster.Roster) ([]api.Guest, error) {
	entries, err := r.List()
	if err != nil {
		return nil, err
	}
	guests := []api.Guest{}
	for _, e := range entries {
		g, err := Describe(e)
		if err != nil {
			g = finished(e, unknown(e))
		}
		guests = append(guests, g)
	}
	return guests, nil
}

// Describe returns a guest as it last described itself.
func Describe(e roster.Entry) (api.Guest, error) {
	g := unknown(e)
	b, err := e.Record()
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte("{}"), nil // the guest has just started, or has just gone
	}
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return g, &fs.PathError{Op: "record", Path: e.Dir, Err: err}
	}
	g.Name = e.Name
	return finished(e, g), nil
}

// Stopped reports whether a guest's process was stopped by a signal, by job control or
// by a debugger. Then neither the guest nor its vmm does anything.
func Stopped(g api.Guest) bool {
	if g.State == api.Ended || g.Pid <= 0 {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.Pid))
	if err != nil {
		return false
	}
	// The command's name is in parentheses, and may contain any character (proc(5)).
	state := bytes.TrimSpace(b[bytes.LastIndexByte(b, ')')+1:])
	return bytes.HasPrefix(state, []byte("T ")) || bytes.HasPrefix(state, []byte("t "))
}

// unknown returns a guest that has not described itself.
func unknown(e roster.Entry) api.Guest {
	return api.Guest{Name: e.Name, State: api.Starting, Config: map[string]any{}}
}

// finished adds what a killed guest could not record itself.
func finished(e roster.Entry, g api.Guest) api.Guest {
	if !e.Alive && (g.State != api.Ended || g.End == nil) {
		const killed = 128 + 9 // what a shell reports for a killed process
		g.State, g.End, g.Ports = api.Ended, &api.End{Reason: Killed, Status: killed}, nil
	}
	return g
}
