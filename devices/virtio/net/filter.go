package net

import (
	"sync"
	"vmm/ethernet"
)

// maxAddresses bounds each table of addresses. A driver that wants more gets all
// frames of that kind (§5.1.6.5.2).
const maxAddresses = 64

// filter decides which frames the guest gets, §5.1.6.5.1. It only saves the guest
// work: the guest drops frames that pass by mistake.
type filter struct {
	mu sync.RWMutex
	s  filterState
}

// filterState is the whole filter, as it is saved.
type filterState struct {
	MAC ethernet.MAC
	// The receive mode. A driver that sets nothing gets all frames.
	Promiscuous, AllUnicast, AllMulticast bool
	NoUnicast, NoMulticast, NoBroadcast   bool
	Unicast, Multicast                    []ethernet.MAC `json:",omitempty"`
	TooMany                               [2]bool        // of Unicast, Multicast
}

// reset sets the filter of a driver that has sent no commands.
func (f *filter) reset(mac ethernet.MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = filterState{MAC: mac, Promiscuous: true}
}

// address returns the guest's own address.
func (f *filter) address() ethernet.MAC {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.s.MAC
}

// pass reports whether the guest wants frames to dst.
func (f *filter) pass(dst ethernet.MAC) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := &f.s
	switch {
	case s.Promiscuous:
		return true
	case dst == ethernet.Broadcast:
		return !s.NoBroadcast
	case dst.Multicast():
		return !s.NoMulticast && (s.AllMulticast || s.TooMany[1] || contains(s.Multicast, dst))
	}
	return !s.NoUnicast && (s.AllUnicast || s.TooMany[0] || dst == s.MAC || contains(s.Unicast, dst))
}

// setTables replaces the addresses. If a list is too long, it is dropped and all
// frames of its kind pass, as if the driver had asked for that.
func (s *filterState) setTables(unicast, multicast []ethernet.MAC) {
	s.Unicast, s.Multicast, s.TooMany[0], s.TooMany[1] = unicast, multicast, len(unicast) > maxAddresses, len(multicast) > maxAddresses
	if s.TooMany[0] {
		s.Unicast = nil
	}
	if s.TooMany[1] {
		s.Multicast = nil
	}
}

func contains(list []ethernet.MAC, m ethernet.MAC) bool {
	for _, a := range list {
		if a == m {
			return true
		}
	}
	return false
}

// change changes the filter with how.
func (f *filter) change(how func(s *filterState)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(&f.s)
}
