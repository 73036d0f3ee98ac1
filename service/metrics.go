package service

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"vmm/histogram"
	"vmm/machine"
)

// handleMetrics serves the machine's counters in Prometheus' text format, version
// 0.0.4. It does not use Prometheus' libraries: they would add protobuf and a few MB
// to every guest for these lines.
func (s *server) handleMetrics(w http.ResponseWriter, _ *http.Request) {
	var e exposition
	about := s.About()
	e.family("guest_restarts_total", "counter", "How often the guest was started again.")
	e.sample("", float64(about.Restarts))
	e.family("guest_up", "gauge", "1 while the guest runs or is paused.")
	if m, err := s.current(); err == nil {
		e.sample("", 1)
		e.machine(m.Stats())
	} else {
		e.sample("", 0)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(e.Bytes())
}

// exposition is the text that is served.
type exposition struct {
	bytes.Buffer
	name string
}

// family begins the samples of one metric.
func (e *exposition) family(name, kind, help string) {
	e.name = "vmm_" + name
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", e.name, help, kind)
}

// sample writes one line. labels are pairs of names and values.
func (e *exposition) sample(suffix string, v float64, labels ...string) {
	e.WriteString(e.name + suffix)
	for i := 0; i < len(labels); i += 2 {
		e.WriteByte("{,"[min(i, 1)])
		e.WriteString(labels[i] + "=" + strconv.QuoteToASCII(labels[i+1])) // the names are our own
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteString(" " + strconv.FormatFloat(v, 'g', -1, 64) + "\n")
}

func (e *exposition) machine(s machine.Stats) {
	e.family("guest_memory_bytes", "gauge", "The guest's RAM.")
	e.sample("", float64(s.Memory))
	e.family("resident_bytes", "gauge", "The host's memory in this process.")
	e.sample("", float64(s.Resident))
	e.family("vcpu_exits_total", "counter", "Exits of a vCPU to this process, by reason.")
	for i, c := range s.CPUs {
		for _, reason := range slices.Sorted(maps.Keys(c.Exits)) {
			e.sample("", float64(c.Exits[reason]), "vcpu", strconv.Itoa(i), "reason", reason)
		}
	}
	e.family("vcpu_seconds_total", "counter", "Processor time of a vCPU's thread, in the guest and outside of it.")
	for i, c := range s.CPUs {
		e.sample("", c.Guest.Seconds(), "vcpu", strconv.Itoa(i), "mode", "guest")
		e.sample("", c.Host.Seconds(), "vcpu", strconv.Itoa(i), "mode", "host")
	}
	e.family("device_total", "counter", "What a device has done: requests, bytes, and what its kind counts.")
	for _, d := range s.Devices {
		counters := deviceCounters(d)
		for _, name := range slices.Sorted(maps.Keys(counters)) {
			e.sample("", float64(counters[name]), "device", d.Name, "counter", name)
		}
	}
	e.family("device_request_seconds", "histogram", "How long a device took for a request, by kind.")
	for _, d := range s.Devices {
		for _, kind := range slices.Sorted(maps.Keys(d.Latency)) {
			e.histogram(d.Latency[kind], "device", d.Name, "request", kind)
		}
	}
}

// histogram writes cumulative buckets: each one counts all values below its bound.
func (e *exposition) histogram(h histogram.Snapshot, labels ...string) {
	var sum uint64
	for i := range histogram.Last {
		sum += h.Counts[i]
		bound := strconv.FormatFloat(histogram.Bound(i).Seconds(), 'g', -1, 64)
		e.sample("_bucket", float64(sum), append(labels, "le", bound)...)
	}
	e.sample("_bucket", float64(h.Total()), append(labels, "le", "+Inf")...)
	e.sample("_sum", h.Sum.Seconds(), labels...)
	e.sample("_count", float64(h.Total()), labels...)
}
