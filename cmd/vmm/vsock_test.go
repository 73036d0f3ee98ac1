package main

import (
	"strings"
	"testing"

	"vmm/machine"
)

func TestVsockFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want machine.Vsock
		err  string // part of it; "" for none
	}{
		{"guest.sock", machine.Vsock{Path: "guest.sock"}, ""},
		{"a,,b,cid=7", machine.Vsock{Path: "a,b", CID: 7}, ""},
		{"a,cid=4294967294", machine.Vsock{Path: "a", CID: 4294967294}, ""},
		{"", machine.Vsock{}, "has no path"},
		{",cid=3", machine.Vsock{}, "has no path"},
		{"a,cid=0", machine.Vsock{}, "must be a number from 3 on"},
		{"a,cid=x", machine.Vsock{}, "must be a number from 3 on"},
		{"a,cid=4294967296", machine.Vsock{}, "must be a number from 3 on"},
		{"a,id=3", machine.Vsock{}, "there is cid"},
	} {
		var v vsock
		err := v.Set(test.text)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) || v.config != nil {
				t.Errorf("%q: %v, %+v, want %q", test.text, err, v.config, test.err)
			}
		case err != nil || *v.config != test.want:
			t.Errorf("%q: %+v, %v; want %+v", test.text, v.config, err, test.want)
		}
	}
}
