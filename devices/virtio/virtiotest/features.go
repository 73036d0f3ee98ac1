package virtiotest

import "vmm/devices/virtio"

var featureChecks = []check{
	{"features", checkFeatures},
	{"status", checkStatus},
}

const (
	acknowledge = virtio.StatusAcknowledge
	driver      = virtio.StatusDriver
	driverOK    = virtio.StatusDriverOK
	featuresOK  = virtio.StatusFeaturesOK
	needsReset  = virtio.StatusNeedsReset
	failed      = virtio.StatusFailed
)

// accepted resets the device, calls write to write its features, and reports whether
// the device accepts them.
func (s *suite) accepted(write func()) bool {
	s.Helper()
	s.d.reset()
	s.d.Set(Status, acknowledge)
	s.d.Set(Status, acknowledge|driver)
	write()
	s.d.Set(Status, acknowledge|driver|featuresOK)
	return s.d.Get(Status)&featuresOK != 0
}

// checkFeatures: which features are accepted, §2.2.2, and that they do not change,
// §3.1.1.
func checkFeatures(s *suite) {
	d := s.d
	offered := d.Offered()
	choose := func(f uint64) func() { return func() { d.Choose(f) } }
	for bit := range 64 {
		f := uint64(1)<<bit | virtio.FeatureVersion1
		if got, want := s.accepted(choose(f)), offered>>bit&1 != 0; got != want {
			s.Errorf("feature %d: accepted is %v, offered is %v", bit, got, want)
		}
		s.cases++
	}
	high := func(sel, v uint32) func() {
		return func() {
			d.Set(DriverFeatureSelect, sel)
			d.Set(DriverFeature, v)
			d.Choose(offered)
		}
	}
	for _, test := range []struct {
		name  string
		write func()
		want  bool
	}{
		{"all", choose(offered), true},
		{"none but VERSION_1", choose(virtio.FeatureVersion1), true},
		{"none", choose(0), false},
		{"all but VERSION_1", choose(offered &^ virtio.FeatureVersion1), false},
		{"twice, first badly", func() { d.Choose(^uint64(0)); d.Choose(offered) }, true},
		{"none above 63", high(2, 0), true},
		{"one above 63", high(2, 1), false},
		{"one far above 63", high(0xffffffff, 1<<31), false},
	} {
		if got := s.accepted(test.write); got != test.want {
			s.Errorf("%s: accepted is %v", test.name, got)
		}
		s.cases++
	}
	s.accepted(choose(virtio.FeatureVersion1))
	d.Choose(offered)
	d.Set(DriverFeatureSelect, 0)
	if got := d.Get(DriverFeature); s.kind != MMIO && got != 0 {
		s.Errorf("features changed to %#x after FEATURES_OK", got)
	}
	d.Choose(^uint64(0)) // has no effect
	d.Set(Status, acknowledge|driver|featuresOK)
	if got := d.Get(Status); got != acknowledge|driver|featuresOK {
		s.Errorf("status %#x", got)
	}
}

// checkStatus: which bits can be set when, and that only a reset clears them.
func checkStatus(s *suite) {
	d := s.d
	for _, test := range []struct {
		name   string
		writes []uint32
		want   uint32
	}{
		{"one by one", []uint32{1, 3, 11, 15}, 15},
		{"at once", []uint32{15}, 15},
		{"backwards", []uint32{15, 11, 3, 1}, 15},
		{"one bit", []uint32{15, 4}, 15},
		{"DRIVER_OK first", []uint32{3, 7}, 3},
		{"DRIVER_OK first, then FEATURES_OK", []uint32{3, 7, 11}, 11},
		{"NEEDS_RESET is ours", []uint32{needsReset | 1}, 1},
		{"FAILED", []uint32{1, 3, failed | 3, 1}, failed | 3},
		{"unknown bits", []uint32{1, 3, 11, 15 | 48}, 15 | 48},
		{"DRIVER_OK twice", []uint32{11, 15, 15, 15}, 15},
		{"reset", []uint32{11, 15, 0}, 0},
		{"reset, twice", []uint32{11, 0, 0}, 0},
		{"again", []uint32{11, 15, 0, 1, 3}, 3},
	} {
		d.reset()
		d.Choose(virtio.FeatureVersion1)
		for _, v := range test.writes {
			d.Set(Status, v)
			if v == 0 {
				d.until("the end of the reset", func() bool { return d.Get(Status) == 0 })
			}
		}
		if got := d.Get(Status); got != test.want {
			s.Errorf("%s: status %#x, want %#x", test.name, got, test.want)
		}
		s.cases++
	}
	// DRIVER_OK before FEATURES_OK does nothing: no queue is served.
	d.reset()
	steps := d.steps(s.setup())
	for _, step := range steps {
		if step.name != "FEATURES_OK" && step.name != "DRIVER_OK" {
			step.do()
		}
	}
	d.Set(Status, acknowledge|driver|driverOK)
	for _, q := range s.driven() {
		q.Submit(s.request(q.index))
		q.Notify()
	}
	s.bystander()
	for _, q := range s.driven() {
		if q.ring.peek() {
			s.Error("a device works without FEATURES_OK")
		}
	}
}
