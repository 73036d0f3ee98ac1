package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	"vmm/api"
	"vmm/machine"
)

// SetBalloon calls the machine's SetBalloon.
func (g *Guest) SetBalloon(bytes int64) error {
	m, err := g.current()
	if err != nil {
		return err
	}
	if bytes < 0 {
		return badRequest{fmt.Errorf("bytes: %d; must not be negative", bytes)}
	}
	return m.SetBalloon(uint64(bytes))
}

// Stats returns what the guest has done in this life.
func (g *Guest) Stats() (api.Stats, error) {
	m, err := g.current()
	if err != nil {
		return api.Stats{}, err
	}
	about := g.About()
	s := m.Stats()
	stats := api.Stats{
		UptimeMs: time.Since(*about.Started).Milliseconds(), MemoryBytes: int64(s.Memory), ResidentBytes: int64(s.Resident),
		Vcpus: []api.VCPU{}, Devices: []api.Device{},
	}
	for i, c := range s.CPUs {
		stats.Vcpus = append(stats.Vcpus, api.VCPU{Id: i, Exits: signed(c.Exits), GuestMs: c.Guest.Milliseconds(), HostMs: c.Host.Milliseconds()})
	}
	for _, d := range s.Devices {
		device := api.Device{Name: d.Name, Counters: signed(deviceCounters(d))}
		for kind, l := range d.Latency {
			device.Counters[kind+"_requests"] = int64(l.Total())
			device.Counters[kind+"_us"] = l.Sum.Microseconds()
		}
		stats.Devices = append(stats.Devices, device)
	}
	if b, err := m.BalloonStats(); err == nil {
		stats.Balloon = balloonStats(b)
	}
	return stats, nil
}

// deviceCounters sums what passed through a device's queues, and adds the device's own
// counters.
func deviceCounters(d machine.DeviceStats) map[string]uint64 {
	all := map[string]uint64{}
	for _, q := range d.Queues {
		all["requests"] += q.Chains
		all["bytes_to_guest"] += q.In
		all["bytes_from_guest"] += q.Out
		all["interrupts"] += q.Interrupts
		all["wakes"] += q.Wakes
	}
	maps.Copy(all, d.Counters)
	return all
}

func signed(m map[string]uint64) map[string]int64 {
	s := make(map[string]int64, len(m))
	for k, v := range m {
		s[k] = int64(v)
	}
	return s
}

func balloonStats(b machine.BalloonStats) *api.BalloonStats {
	s := &api.BalloonStats{TargetBytes: int64(b.Target), ActualBytes: int64(b.Actual)}
	if len(b.Guest) > 0 {
		guest := signed(b.Guest)
		s.Guest = &guest
	}
	return s
}

// handleTrace sends exits as lines of JSON.
func (s *server) handleTrace(w http.ResponseWriter, r *http.Request) {
	m, err := s.current()
	if err != nil {
		fail(w, err)
		return
	}
	exits, stop, err := m.Trace()
	if err != nil {
		fail(w, err)
		return
	}
	defer stop()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	flush.Flush()
	lines := json.NewEncoder(w)
	for {
		select {
		case x := <-exits:
			if lines.Encode(x) != nil {
				return
			}
			if len(exits) == 0 {
				flush.Flush()
			}
		case <-m.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}
