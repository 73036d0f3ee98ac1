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
		{"src:/mnt:", machine.Share{}, `unknown option ""`},
		{"src:/mnt:Z", machine.Share{}, "there are ro and rw"},
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
	f.Fuzz(func(t *testing.T, text string) {
		var v volumes
		if v.Set(text) == nil && (len(v) != 1 || v[0].Dir == "" || !strings.HasPrefix(v[0].Mount, "/")) {
			t.Errorf("%q: %+v", text, v)
		}
	})
}
