package main

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strconv"
)

const (
	mostEntries = 5
	leastShown  = 5       // seconds: faster entries are of no interest
	longestLine = 1 << 16 // bytes of a line that are examined
)

// slowest passes on what a command prints, and finds in it what took longest: packages and
// tests of go test, and jobs of the lab.
type slowest struct {
	out     io.Writer
	line    []byte
	entries []entry // the longest first
}

type entry struct {
	name    string
	seconds float64
}

// timed matches the lines that say how long something took.
var timed = []*regexp.Regexp{
	regexp.MustCompile(`^(?:ok|FAIL)\s+(?P<name>\S+)\s+(?P<seconds>[0-9.]+)s`),
	regexp.MustCompile(`^\s*--- (?:PASS|FAIL): (?P<name>\S+) \((?P<seconds>[0-9.]+)s\)`),
	regexp.MustCompile(`^lab: (?:ok|FAIL) +(?P<seconds>[0-9.]+) s +(?P<name>[^\s:]+)`),
}

// Write fails only if out does, never because of what it looks for.
func (s *slowest) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		if len(s.line)+len(part) <= longestLine {
			s.line = append(s.line, part...)
		}
		if rest = after; ended {
			s.end()
		}
	}
	return n, err
}

// end is called at the end of a line.
func (s *slowest) end() {
	for _, r := range timed {
		if m := r.FindSubmatch(s.line); m != nil {
			seconds, _ := strconv.ParseFloat(string(m[r.SubexpIndex("seconds")]), 64)
			s.add(entry{string(m[r.SubexpIndex("name")]), seconds})
		}
	}
	s.line = s.line[:0]
}

func (s *slowest) add(e entry) {
	if e.seconds < leastShown {
		return
	}
	s.entries = append(s.entries, e)
	slices.SortStableFunc(s.entries, func(a, b entry) int { return int(b.seconds*1000) - int(a.seconds*1000) })
	s.entries = s.entries[:min(len(s.entries), mostEntries)]
}
