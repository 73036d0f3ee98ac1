package main

import (
	"reflect"
	"strings"
	"testing"

	"vmm/machine"
)

func TestDiskFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want machine.Disk
		err  string // part of it; "" for none
	}{
		{"a.img", machine.Disk{Path: "a.img"}, ""},
		{"a.img,ro", machine.Disk{Path: "a.img", ReadOnly: true}, ""},
		{"a.img,ro=off,direct=on,serial=S 1,queues=4", machine.Disk{Path: "a.img", Direct: true, Serial: "S 1", Queues: 4}, ""},
		{"a,,b.img,direct", machine.Disk{Path: "a,b.img", Direct: true}, ""},
		{"a.img,,,ro", machine.Disk{Path: "a.img,", ReadOnly: true}, ""},
		{"", machine.Disk{}, "no path"},
		{",ro", machine.Disk{}, "no path"},
		{"a.img,r", machine.Disk{}, "unknown option"},
		{"a.img,serail=x", machine.Disk{}, "did you mean serial?"},
		{"a.img,zzz", machine.Disk{}, "written twice"},
		{"a.img,ro=yes", machine.Disk{}, "must be on or off"},
		{"a.img,queues=0", machine.Disk{}, "from 1 on"},
		{"a.img,queues=two", machine.Disk{}, "from 1 on"},
		{"a.img,", machine.Disk{}, "unknown option"},
	} {
		var d disks
		err := d.Set(test.text)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.text, err, test.err)
			}
		case err != nil || !reflect.DeepEqual(d, disks{test.want}):
			t.Errorf("%q: %+v, %v; want %+v", test.text, d, err, test.want)
		}
	}
}

func FuzzDiskFlag(f *testing.F) {
	f.Add("a.img,ro,direct=on,serial=x,queues=2")
	f.Add(",,,")
	f.Fuzz(func(t *testing.T, text string) {
		var d disks
		if d.Set(text) == nil && (len(d) != 1 || d[0].Path == "" || d[0].Queues < 0) {
			t.Errorf("%q: %+v", text, d)
		}
	})
}
