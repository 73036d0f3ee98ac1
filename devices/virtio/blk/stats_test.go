package blk

import (
	"testing"
	"time"
)

// TestStats: each answer counts once, under its kind.
func TestStats(t *testing.T) {
	d, err := New(newMemory(t, 1<<20), Config{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Second)
	for _, one := range []struct {
		kind   uint32
		answer status
	}{
		{typeIn, statusOK}, {typeIn, statusOK}, {typeOut, statusOK}, {typeFlush, statusOK}, {typeDiscard, statusOK}, {typeWriteZeroes, statusOK},
		{typeID, statusOK}, {typeIn, statusIOErr}, {typeOut, statusIOErr}, {99, statusUnsupp},
	} {
		d.stats.done(&request{kind: one.kind, began: began}, one.answer)
	}
	for name, want := range map[string]uint64{"read": 2, "write": 1, "flush": 1, "discard": 2} {
		l := d.Latency()[name]
		if l.Total() != want || l.Sum < time.Duration(want)*time.Second {
			t.Errorf("%s: %d in %v, want %d", name, l.Total(), l.Sum, want)
		}
	}
	if c := d.Counters(); c["failed"] != 2 || c["refused"] != 1 {
		t.Errorf("counters %v", c)
	}
}
