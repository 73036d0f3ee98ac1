package main

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for _, test := range []struct {
		line string
		want options
		ok   bool
	}{
		{"console=ttyS0 quiet\n", options{hostname: "guest"}, true},
		{`a=b vmm.exec="echo hi; exit 3" vmm.exit=0x501`, options{hostname: "guest", exec: "echo hi; exit 3", exitPort: 0x501}, true},
		{`"vmm.exec=uname -a" vmm.quiet`, options{hostname: "guest", exec: "uname -a", quiet: true}, true},
		{"vmm.hostname=box vmm.ip=10.0.2.15/24,10.0.2.2 vmm.dns=10.0.2.3", options{hostname: "box", ip: "10.0.2.15/24,10.0.2.2", dns: "10.0.2.3"}, true},
		{"vmm.shell=1023", options{hostname: "guest", shell: "1023"}, true},
		{"vmm.exit=70000", options{hostname: "guest", exitPort: 0xffff}, false},
		{`vmm.exec="never closed`, options{hostname: "guest", exec: "never closed"}, true},
		{"", options{hostname: "guest"}, true},
		{"vmm.share=share0:/mnt vmm.share=s:/a%20b%3A%25:ro", options{hostname: "guest", shares: []share{{"share0", "/mnt", false}, {"s", "/a b:%", true}}}, true},
		{"vmm.share=share0", options{}, false},
		{"vmm.share=share0:mnt", options{}, false},
		{"vmm.share=share0:/", options{}, false},
		{"vmm.share=:/mnt", options{}, false},
		{"vmm.share=s:/mnt:rw", options{}, false},
		{"vmm.share=s:/mnt%2", options{}, false},
	} {
		got, err := parseOptions(test.line)
		if (err == nil) != test.ok || err == nil && !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: %+v, %v; want %+v", test.line, got, err, test.want)
		}
	}
}

func TestPowerKey(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		b := binary.LittleEndian.AppendUint16(make([]byte, 16), kind)
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(b, code), value)
	}
	for _, test := range []struct {
		event []byte
		want  bool
	}{
		{event(1, 116, 1), true},
		{event(1, 116, 0), false}, // released
		{event(1, 30, 1), false},  // another key
		{event(0, 116, 1), false}, // not a key event
	} {
		if got := isPowerKey(test.event); got != test.want {
			t.Errorf("% x: %v", test.event, got)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for raw, want := range map[unix.WaitStatus]int{0: 0, 5 << 8: 5, 9: 137, 0x8b: 139} {
		if got := exitStatus(raw); got != want {
			t.Errorf("%#x: %d, want %d", raw, got, want)
		}
	}
}

// TestOver: what ends the machine and what only ends a shell.
func TestOver(t *testing.T) {
	failed := unix.WaitStatus(2 << 8)
	g := new(guest)
	for n := range quickLimit {
		if g.over(failed) {
			t.Fatalf("over after %d failures", n+1)
		}
	}
	if !g.over(failed) {
		t.Error("a shell that always fails is started for ever")
	}
	for _, g := range []*guest{{}, {options: options{exec: "true"}}} {
		if !g.over(0) {
			t.Errorf("%+v goes on", g.options)
		}
	}
	if g := (&guest{options: options{exec: "false"}}); !g.over(failed) {
		t.Error("a command runs again")
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		kernel []string
		want   string
	}{
		{[]string{"HOME=/", "TERM=linux"}, "TERM=vt100"},
		{[]string{"TERM=xterm", "x=y"}, "TERM=xterm"},
	} {
		if got := environment(test.kernel); !slices.Contains(got, test.want) || slices.Contains(got, "HOME=/") {
			t.Errorf("%v gives %v", test.kernel, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	if got := unescape(`/mnt/a\040b\134c`); got != `/mnt/a b\c` {
		t.Error(got)
	}
}

// TestLinkPorts: a port gets a link once it has a name, and no name leads outside the
// directory.
func TestLinkPorts(t *testing.T) {
	class, links := t.TempDir(), filepath.Join(t.TempDir(), "links")
	for port, name := range map[string]string{"vport1p0": "org.test.0\n", "vport1p1": "", "vport1p2": "../x", "vport1p3": "..", "vport1p4": "b"} {
		dir := filepath.Join(class, port)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	linkPorts(class, links)
	linkPorts(class, links) // again, for another event
	got := map[string]string{}
	entries, err := os.ReadDir(links)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got[e.Name()], _ = os.Readlink(filepath.Join(links, e.Name()))
	}
	if want := map[string]string{"org.test.0": "../vport1p0", "b": "../vport1p4"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
