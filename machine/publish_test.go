package machine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"vmm/kvm"
)

// TestPublished: published ports belong to the guest from its first life to its last,
// and Bound tells which they are.
func TestPublished(t *testing.T) {
	sys, err := OpenKVM(kvm.Device)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{"kernel": exits(1)})
	any := netip.MustParseAddrPort("127.0.0.1:0")
	c := Config{Kernel: "kernel", CPUs: 1, Memory: 32 << 20, Nets: []Net{{Forwards: []Forward{{Listen: any, Guest: 7}, {UDP: true, Listen: any, Guest: 7}}}}}
	if c.Files, err = Hold(&c); err != nil {
		t.Fatal(err)
	}
	defer c.Files.Close()
	var before Config
	for range 2 {
		life(t, c, func(*Machine) {})
		now := c.Files.Bound(c)
		for i, f := range now.Nets[0].Forwards {
			if f.Listen.Port() == 0 || f.Guest != 7 || before.Nets != nil && f != before.Nets[0].Forwards[i] {
				t.Errorf("%+v; before: %+v", now.Nets, before.Nets)
			}
		}
		before = now
		if err := taken(before.Nets[0].Forwards); err != nil {
			t.Errorf("between two lives: %v", err)
		}
	}
	if f := c.Nets[0].Forwards[0]; f.Listen != any {
		t.Errorf("the caller's Config has changed: %v", f)
	}
	c.Files.Close()
	if taken(before.Nets[0].Forwards) == nil {
		t.Error("the ports are not given back")
	}
}

// taken returns an error if any of the ports is free.
func taken(list []Forward) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, f := range list {
		var l net.ListenConfig
		if f.UDP {
			if c, err := l.ListenPacket(ctx, "udp4", f.Listen.String()); err == nil {
				c.Close()
				return fmt.Errorf("udp %v is free", f.Listen)
			}
		} else if c, err := l.Listen(ctx, "tcp4", f.Listen.String()); err == nil {
			c.Close()
			return fmt.Errorf("tcp %v is free", f.Listen)
		}
	}
	return nil
}
