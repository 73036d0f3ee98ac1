package main

import (
	"os"
	"strings"
	"testing"
)

// A guest of 8 pages with the kernel in the middle, a hardly used heap as large as
// the RAM, and a program.
const smaps = `00400000-00500000 r-xp 00000000 08:01 77   /usr/bin/vmm
Size:               1024 kB
Rss:                 700 kB
Shared_Clean:        600 kB
Private_Clean:       100 kB
VmFlags: rd ex mr mw me
c000000000-c000008000 rw-p 00000000 00:00 0
Rss:                   4 kB
Private_Dirty:         4 kB
c000008000-c000010000 ---p 00000000 00:00 0
Rss:                   0 kB
7f0000000000-7f0000002000 rw-p 00000000 00:00 0
Rss:                   8 kB
Private_Dirty:         8 kB
7f0000002000-7f0000005000 rw-p 00001000 00:2a 12   /tmp/a b/0123-45.image (deleted)
Rss:                  12 kB
Private_Clean:         4 kB
Private_Dirty:         8 kB
7f0000005000-7f0000008000 rw-p 00000000 00:00 0
Rss:                   4 kB
7f0000009000-7f000000a000 rw-s 00000000 00:0e 9    anon_inode:kvm-vcpu:0
Rss:                   4 kB
Private_Dirty:         1 kB
`

func TestFootprint(t *testing.T) {
	all, err := readSmaps(strings.NewReader(smaps))
	if err != nil || len(all) != 7 {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	got, err := footprint(all, 8*4096)
	if err != nil {
		t.Fatal(err)
	}
	if got.Value != 700+4+4 || got.Parts["dirty"] != 5 || got.Parts["guest RAM"] != 12 || got.Parts["kernel cache"] != 12 {
		t.Errorf("%+v", got)
	}
	if _, err := footprint(all, 7*4096); err == nil {
		t.Error("RAM that is not there is found")
	}
}

func TestReadSmapsBad(t *testing.T) {
	for _, text := range []string{
		"Rss: 1 kB\n",
		"zz-00500000 r-xp 0 08:01 77\n",
		"00600000-00500000 r-xp 0 08:01 77\n",
		"00400000-00500000 r-xp 0 08:01 77\nRss: many kB\n",
	} {
		if all, err := readSmaps(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %v", text, all)
		}
	}
}

// TestReadSmapsSelf: readSmaps understands this kernel's format.
func TestReadSmapsSelf(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	all, err := readSmaps(f)
	if err != nil || len(all) < 5 {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	var resident uint64
	for _, m := range all {
		resident += m.rss
	}
	if resident == 0 {
		t.Error("nothing of this process is in memory")
	}
}
