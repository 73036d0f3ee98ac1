package machine

import (
	"errors"
	"strings"
	"testing"

	"vmm/devices/virtio/vsock"
)

func TestVsockConfig(t *testing.T) {
	for _, test := range []struct {
		vsock *Vsock
		err   string // part of the error; "" means none
	}{
		{nil, ""},
		{&Vsock{Path: "a"}, ""},
		{&Vsock{Path: "a", CID: vsock.MinCID}, ""},
		{&Vsock{Path: "a", CID: vsock.MaxCID}, ""},
		{&Vsock{}, "no path"},
		{&Vsock{Path: "a", CID: 1}, "cid 1"},
		{&Vsock{Path: "a", CID: 2}, "a: cid 2; a guest has one from 3 to 4294967294"},
		{&Vsock{Path: "a", CID: 1<<32 - 1}, "cid 4294967295"},
	} {
		c := Config{Kernel: "k", CPUs: 1, Memory: MinMemory, Vsock: test.vsock}
		err := c.Validate()
		var config *ConfigError
		switch {
		case test.err == "" && err != nil:
			t.Errorf("%+v: %v", test.vsock, err)
		case test.err != "" && (!errors.As(err, &config) || config.Field != "Vsock" || !strings.Contains(config.Why, test.err)):
			t.Errorf("%+v: %v, want %q", test.vsock, err, test.err)
		}
	}
}
