package main

import (
	"reflect"
	"strings"
	"testing"

	"vmm/machine"
)

func TestVolumeFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want machine.Share
		err  string // part of it; "" for none
	}{
		{"src:/mnt", machine.Share{Dir: "src", Mount: "/mnt"}, ""},
		{"/a b:/c d:ro", machine.Share{Dir: "/a b", Mount: "/c d", ReadOnly: true}, ""},
		{"a:/b:rw", machine.Share{Dir: "a", Mount: "/b"}, ""},
		{"c::dir:/d::ir:ro", machine.Share{Dir: "c:dir", Mount: "/d:ir", ReadOnly: true}, ""},
		{"", machine.Share{}, "must be HOST:GUEST"},
		{"/src", machine.Share{}, "must be HOST:GUEST"},
		{":/mnt", machine.Share{}, "must be HOST:GUEST"},
		{"src:", machine.Share{}, "must be HOST:GUEST"},
		{"a:/b,ro", machine.Share{Dir: "a", Mount: "/b", ReadOnly: true}, ""},
		{"a:/b:ro,rate=10M", machine.Share{Dir: "a", Mount: "/b", ReadOnly: true, BytesPerSecond: 10 << 20}, ""},
		{"a:/b,size=1G,rate=1K", machine.Share{Dir: "a", Mount: "/b", Size: 1 << 30, Quota: machine.NewQuota(1 << 30), BytesPerSecond: 1 << 10}, ""},
		{"a:/b:size=1M", machine.Share{Dir: "a", Mount: "/b", Size: 1 << 20, Quota: machine.NewQuota(1 << 20)}, ""},
		{"a:/b:owner=host", machine.Share{Dir: "a", Mount: "/b", HostOwner: true}, ""},
		{"a:/b,owner=1000", machine.Share{Dir: "a", Mount: "/b", UID: 1000, GID: 1000}, ""},
		{"a:/b,owner=1000:0", machine.Share{Dir: "a", Mount: "/b", UID: 1000}, ""},
		{"a:/b,owner=host,owner=0:7", machine.Share{Dir: "a", Mount: "/b", GID: 7}, ""},
		{"c,,dir:/d,,ir", machine.Share{Dir: "c,dir", Mount: "/d,ir"}, ""},
		{"a:/b,rate=10", machine.Share{}, "rate=10: has no unit"},
		{"a:/b,size=0M", machine.Share{}, "leave it out"},
		{"a:/b,owner=", machine.Share{}, "UID or UID:GID"},
		{"a:/b,owner=root", machine.Share{}, "UID or UID:GID"},
		{"a:/b,owner=4294967295", machine.Share{}, "UID or UID:GID"},
		{"a:/b,owner=1:2:3", machine.Share{}, "UID or UID:GID"},
		{"a:/b,sise=1M", machine.Share{}, "did you mean size?"},
		{"a:/b,c", machine.Share{}, "a comma in a path is written twice"},
		{"src:/mnt:", machine.Share{}, `unknown option ""`},
		{"src:/mnt:Z", machine.Share{}, "there are ro, rw, rate, size and owner"},
		{"src:/mnt:ro:rw", machine.Share{}, "must be HOST:GUEST"},
		{"src:mnt", machine.Share{}, "does not begin with /"},
	} {
		var v volumes
		err := v.Set(test.text)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.text, err, test.err)
			}
		case err != nil || !reflect.DeepEqual(v, volumes{test.want}):
			t.Errorf("%q: %+v, %v; want %+v", test.text, v, err, test.want)
		}
	}
}

func FuzzVolumeFlag(f *testing.F) {
	f.Add("src:/mnt:ro")
	f.Add("a::b:/c:rw")
	f.Add("a,,b:/c:rw,rate=1M,size=1G,owner=1000:100")
	f.Fuzz(func(t *testing.T, text string) {
		var v volumes
		if v.Set(text) == nil && (len(v) != 1 || v[0].Dir == "" || !strings.HasPrefix(v[0].Mount, "/")) {
			t.Errorf("%q: %+v", text, v)
		}
	})
}
