package balloon

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmm/devices/virtio"
	"vmm/mem"
)

const (
	all   = featureStats | featureDeflateOnOOM | featurePoison | featureReporting
	page  = uint32(pagesAt / mem.PageSize)
	last  = uint32((ramBase+ramSize)/mem.PageSize) - 1
	upper = uint32(highBase / mem.PageSize)
)

func TestInflate(t *testing.T) {
	d := start(t, all)
	for _, test := range []struct {
		name   string
		give   []uint32
		gone   []uint32
		beside int // bytes that do not make a whole number
	}{
		{name: "one", give: []uint32{page}, gone: []uint32{page}},
		{name: "ascending", give: []uint32{page, page + 1, page + 2, page + 7}, gone: []uint32{page, page + 1, page + 2, page + 7}},
		{name: "descending", give: []uint32{page + 2, page + 1, page}, gone: []uint32{page, page + 1, page + 2}},
		{name: "twice", give: []uint32{page + 1, page, page + 1, page}, gone: []uint32{page, page + 1}},
		{name: "none", give: nil, gone: nil, beside: 3},
		{name: "a part of a number", give: []uint32{page}, gone: []uint32{page}, beside: 2},
		{name: "no RAM", give: []uint32{0, 0xffffffff, 0x80000000, uint32(ramBase/mem.PageSize) - 1}, gone: nil},
		{name: "across the end", give: []uint32{last - 1, last, last + 1, last + 2, 0xffffffff, 0xfffffffe}, gone: []uint32{last - 1, last}},
		{name: "above 4 GiB", give: []uint32{upper, page, upper - 1}, gone: []uint32{page, upper}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d.t = t
			c := d.numbers(test.give)
			c.n += uint32(test.beside)
			for k := range test.beside {
				d.bytes(c.addr+mem.Addr(4*len(test.give)+k), 1)[0] = 1
			}
			d.do(queueInflate, c)
			if got := d.discarded(); !slices.Equal(got, test.gone) {
				t.Errorf("gone are pages %#x, want %#x", got, test.gone)
			}
		})
	}
	d.t = t
	d.do(queueDeflate, d.numbers([]uint32{page, page, 0xffffffff}))
	d.do(queueInflate, desc{addr: dataAt, n: 64, writable: true}) // nothing to read
	if got := d.discarded(); got != nil {
		t.Errorf("gone are pages %#x", got)
	}
}

// counting counts Discard calls and their pages, and gives nothing back.
type counting struct {
	*mem.Memory
	calls, pages int
	err          error
}

func (c *counting) Discard(b []byte) error {
	c.calls++
	c.pages += len(b) / mem.PageSize
	return c.err
}

// TestNeighbours: adjacent pages are given back together, however their numbers are cut
// and ordered. A request costs no more than its bound.
func TestNeighbours(t *testing.T) {
	d := start(t, all)
	c := &counting{Memory: d.m}
	d.dev.memory = c
	var list []uint32
	for i := range uint32(512) {
		list = append(list, page+(511-i))
	}
	d.do(queueInflate, d.numbers(list))
	if c.calls != 1 || c.pages != 512 {
		t.Errorf("%d calls for %d pages in one piece of 512", c.calls, c.pages)
	}
	*c = counting{Memory: d.m}
	var sparse []uint32
	for i := range uint32(batch) {
		sparse = append(sparse, page+i%448*2)
	}
	one := d.numbers(sparse)
	var many []desc
	for range 64 { // the same numbers, again and again
		many = append(many, one)
	}
	d.do(queueInflate, many...)
	if most := maxPages / batch * 448; c.pages != most {
		t.Errorf("%d pages of one request, want %d", c.pages, most)
	}
}

func TestReport(t *testing.T) {
	ranges := []desc{
		{pagesAt, 2 * mem.PageSize, true},
		{pagesAt + 9*mem.PageSize, 1, true},                 // not a whole page
		{pagesAt + 20*mem.PageSize + 1, mem.PageSize, true}, // nor is this
		{highBase, highSize, true},
	}
	want := []uint32{page, page + 1}
	for i := range uint32(highSize / mem.PageSize) {
		want = append(want, upper+i)
	}
	for _, test := range []struct {
		name     string
		features uint64
		queue    int
		poison   uint32
		gone     bool
	}{
		{"queue 4", featureReporting | featureStats, 4, 0, true},
		{"queue 3, as Linux has it", featureReporting | featureStats, 3, 0, true},
		{"queue 2, as Linux has it without statistics", featureReporting, 2, 0, true},
		{"not negotiated", featureStats, 4, 0, false},
		{"free pages are zeros", featureReporting | featurePoison, 4, 0, true},
		{"free pages have a pattern", featureReporting | featurePoison, 4, 0xaa, false},
		{"a pattern that was not negotiated", featureReporting, 4, 0xaa, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := start(t, test.features)
			p := le.AppendUint32(nil, test.poison)
			d.dev.WriteConfig(configPoison, p)
			d.do(test.queue, ranges...)
			d.do(test.queue, desc{addr: pagesAt + 0x100000, n: 2 * mem.PageSize}) // readable: no report
			got := d.discarded()
			if !test.gone && got != nil || test.gone && !slices.Equal(got, want) {
				t.Errorf("gone are pages %#x", got)
			}
			if n := d.dev.Stats().Reported; test.gone != (n > 0) {
				t.Errorf("%d bytes reported", n)
			}
		})
	}
}

// TestOwnRings: a guest that gives away its own rings harms only itself.
func TestOwnRings(t *testing.T) {
	d := start(t, all)
	var list []uint32
	for a := ramBase; a < pagesAt; a += mem.PageSize {
		list = append(list, uint32(a/mem.PageSize))
	}
	d.submit(queueInflate, d.numbers(list))
	for range 3 {
		for i, q := range d.q {
			d.dev.Serve(i, q)
		}
	}
	d.stop()
	d.run(all) // after a reset it works
	d.do(queueInflate, d.numbers([]uint32{page}))
	if got := d.discarded(); !slices.Equal(got, []uint32{page}) {
		t.Errorf("gone are pages %#x", got)
	}
}

// TestDiscardFails: the guest does not notice, and the log has one line.
func TestDiscardFails(t *testing.T) {
	d := start(t, all)
	var log bytes.Buffer
	d.dev.log = slog.New(slog.NewTextHandler(&log, nil))
	d.dev.memory = &counting{Memory: d.m, err: errors.New("not today")}
	for range 3 {
		d.do(queueInflate, d.numbers([]uint32{page, page + 2}))
		d.do(4, desc{pagesAt, mem.PageSize, true})
	}
	if n := strings.Count(log.String(), "not today"); n != 1 {
		t.Errorf("%d lines in the log: %s", n, &log)
	}
	if n := d.dev.Stats().Reported; n != 0 {
		t.Errorf("%d bytes reported", n)
	}
}

func TestTarget(t *testing.T) {
	d := start(t, all)
	config := func() []byte {
		b := make([]byte, configSize+4)
		d.dev.ReadConfig(0, b)
		return b
	}
	d.dev.SetTarget(5*mem.PageSize + 4095)
	d.dev.SetTarget(5 * mem.PageSize) // no change
	d.dev.WriteConfig(configActual, []byte{3, 0})
	d.dev.WriteConfig(configActual+2, []byte{1, 0, 9, 9, 9, 9}) // not beyond the field
	d.dev.WriteConfig(configTarget, []byte{7, 7})
	want := []byte{5, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := config(); !bytes.Equal(got, want) || d.changes != 1 {
		t.Errorf("%d changes, configuration %x, want %x", d.changes, got, want)
	}
	if s := d.dev.Stats(); s.Target != 5*mem.PageSize || s.Actual != 0x10003*mem.PageSize {
		t.Errorf("%+v", s)
	}
	d.stop()
	d.dev.SetTarget(1 << 60)
	d.dev.Reset()
	if got := config(); !bytes.Equal(got[:8], []byte{255, 255, 255, 255, 0, 0, 0, 0}) || d.changes != 1 {
		t.Errorf("after a reset: %d changes, configuration %x", d.changes, got)
	}
	d.run(all)
}

// askedFor returns the size that the driver is to give the balloon.
func askedFor(d *Device) uint32 {
	b := make([]byte, 4)
	d.ReadConfig(configTarget, b)
	return le.Uint32(b)
}

// TestOutOfMemory: a guest takes memory back while its balloon is still to grow. It is
// not asked for that memory again, or it would give and take for ever. It is given some
// more, twice as much each time.
func TestOutOfMemory(t *testing.T) {
	const pages = 100_000
	for _, test := range []struct {
		name     string
		features uint64
		actual   []uint32 // what the driver says of its balloon, in sequence
		asked    uint32
		changes  int
	}{
		{"it grows", all, []uint32{20_000, 40_000, pages}, pages, 1},
		{"it cannot grow further for now", all, []uint32{20_000, 40_000, 40_000}, pages, 1},
		{"out of memory", all, []uint32{40_000, 39_744}, 39_744 - 4096, 2},
		{"and it gives back what it may", all, []uint32{40_000, 39_744, 38_000, 39_744 - 4096}, 39_744 - 4096, 2},
		{"and once more on the way", all, []uint32{40_000, 39_744, 38_000, 37_744, 39_744 - 4096}, 39_744 - 4096, 2},
		{"again", all, []uint32{40_000, 39_744, 35_648, 35_392}, 35_392 - 8192, 3},
		{"and again, and there is no more", all, []uint32{40_000, 39_744, 35_648, 35_392, 27_200, 26_944, 10_560, 10_304}, 0, 5},
		{"and between two of them it grew", all, []uint32{40_000, 39_744, 30_000, 35_000, 29_000}, 30_000 - 8192, 3},
		{"once it was as large as asked for", all, []uint32{pages, 99_744}, 99_744 - 4096, 2},
		{"too large", all, []uint32{200_000, 150_000, pages}, pages, 1},
		{"the driver may not", all &^ featureDeflateOnOOM, []uint32{40_000, 30_000}, pages, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := start(t, test.features)
				d.dev.SetTarget(pages * mem.PageSize)
				asked := func() uint32 { return askedFor(d.dev) }
				for _, n := range test.actual {
					d.dev.WriteConfig(configActual, le.AppendUint32(nil, n))
				}
				if got := asked(); got != test.asked || d.changes != test.changes {
					t.Errorf("asked for %d pages in %d changes, want %d in %d", got, d.changes, test.asked, test.changes)
				}
				state, err := d.dev.Save()
				if err != nil {
					t.Fatal(err)
				}
				if err := d.dev.Load(state); err != nil || asked() != test.asked {
					t.Errorf("loaded: %d pages, %v", asked(), err)
				}
				if got := d.dev.Stats().Target; got != pages*mem.PageSize {
					t.Errorf("the host wants %d bytes", got)
				}
				again := map[string]func(){
					"the host":          func() { d.dev.SetTarget(pages * mem.PageSize) },
					"a new driver":      d.dev.Reset,
					"some time":         func() { time.Sleep(askAgain); synctest.Wait() },
					"a pause, and some": func() { d.stop(); time.Sleep(time.Hour); d.run(test.features); time.Sleep(askAgain); synctest.Wait() },
				}
				for who, ask := range again {
					d.dev.WriteConfig(configActual, le.AppendUint32(nil, 6))
					d.dev.WriteConfig(configActual, le.AppendUint32(nil, 5))
					if ask(); asked() != pages {
						t.Errorf("after %s asked for %d pages", who, asked())
					}
				}
			})
		})
	}
}

func TestSave(t *testing.T) {
	m := &still{Memory: mem.New()}
	d := New(m, nil)
	d.SetTarget(1 << 30)
	d.WriteConfig(configActual, []byte{1, 2, 3, 4})
	d.WriteConfig(configPoison, []byte{5, 6, 7, 8})
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	other := New(m, nil)
	if err := other.Load(state); err != nil {
		t.Fatal(err)
	}
	if other.config != d.config {
		t.Errorf("loaded %x, saved %x", other.config, d.config)
	}
	for _, bad := range []string{"", "{", `{"Target": -1}`, `{"Actual": 4294967296}`, "[]"} {
		if New(m, nil).Load([]byte(bad)) == nil {
			t.Errorf("loaded %q", bad)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	d := start(t, all)
	d.dev.memory = &counting{Memory: d.m}
	c := d.numbers([]uint32{page, page + 1, page + 9})
	work := func() {
		d.do(queueInflate, c)
		d.do(queueDeflate, c)
		d.do(4, desc{pagesAt, mem.PageSize, true})
	}
	work()
	if n := testing.AllocsPerRun(100, work); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var _ virtio.Device = (*Device)(nil)
var _ virtio.Saver = (*Device)(nil)
var _ virtio.Resetter = (*Device)(nil)
