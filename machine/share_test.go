package machine

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestShares(t *testing.T) {
	const long = "0123456789012345678901234567890123456"
	for _, test := range []struct {
		shares []Share
		want   string // part of the error; "" means none
	}{
		{[]Share{{Dir: "a"}, {Dir: "a"}}, ""},
		{[]Share{{Dir: "a", Mount: "/mnt"}, {Dir: "b", Mount: "/mnt2", Tag: "tag", ReadOnly: true}}, ""},
		{[]Share{{}}, "no directory"},
		{[]Share{{Dir: "a", Tag: long}}, "it has up to 36"},
		{[]Share{{Dir: "a", Tag: "a b"}}, "printable"},
		{[]Share{{Dir: "a", Tag: "a:b"}}, "printable"},
		{[]Share{{Dir: "a", Mount: "mnt"}}, "give it a directory, such as /mnt"},
		{[]Share{{Dir: "a", Mount: "/"}}, "give it a directory"},
		{[]Share{{Dir: "a", Mount: "/x/.."}}, "give it a directory"},
		{[]Share{{Dir: "a", Mount: "/" + strings.Repeat("x", 256)}}, "longer than 256"},
		{[]Share{{Dir: "a", Mount: "/mnt"}, {Dir: "b", Mount: "/mnt/"}}, "there is another"},
		{[]Share{{Dir: "a", Tag: "share1"}, {Dir: "b"}}, "there is another"},
		{make([]Share, MaxShares+1), "at most 16"},
		{[]Share{{Dir: "a", UID: 1000, GID: 1 << 31, Size: minSize, BytesPerSecond: 1}}, ""},
		{[]Share{{Dir: "a", GID: 1<<32 - 1}}, "has the number 4294967295"},
		{[]Share{{Dir: "a", Size: minSize - 1}}, "at least 64 KiB"},
	} {
		c := Config{Kernel: "k", CPUs: 1, Memory: MinMemory, Shares: test.shares}
		err := c.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", test.shares, err, test.want)
		}
	}
}

func TestShareWords(t *testing.T) {
	c := Config{Shares: []Share{
		{Dir: "a", Mount: "/mnt/"}, {Dir: "b"}, {Dir: "c", Tag: "tag", Mount: "/a b:\"%\x01é", ReadOnly: true},
	}}
	want := []string{"vmm.share=share0:/mnt", "vmm.share=tag:/a%20b%3A%22%25%01%C3%A9:ro"}
	if got := c.shareWords(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if line := c.cmdline(0, []string{"device"}); line != DefaultCmdline+" device "+strings.Join(want, " ") {
		t.Errorf("command line %q", line)
	}
}

// TestShareOrder: a share inside another is mounted after it, whatever order they
// are given in.
func TestShareOrder(t *testing.T) {
	c := Config{Shares: []Share{
		{Dir: "a", Mount: "/mnt/b/../b/c"}, {Dir: "b", Mount: "//srv//x/"}, {Dir: "c", Mount: "/mnt/b"}, {Dir: "d", Mount: "/mnt"}, {Dir: "e", Mount: "/a"},
	}}
	want := []string{"vmm.share=share3:/mnt", "vmm.share=share4:/a", "vmm.share=share1:/srv/x", "vmm.share=share2:/mnt/b", "vmm.share=share0:/mnt/b/c"}
	if got := c.shareWords(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestShareInside: a share inside a read-only share needs an existing directory
// there.
func TestShareInside(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	outer := Share{Dir: dir, Mount: "/mnt", ReadOnly: true}
	for _, test := range []struct {
		shares []Share
		ok     bool
	}{
		{[]Share{{Dir: "x", Mount: "/mnt/b"}, outer}, true},
		{[]Share{outer, {Dir: "x", Mount: "/mnt/b/c/"}}, true},
		{[]Share{outer, {Dir: "x", Mount: "/mnt/d"}}, false},
		{[]Share{outer, {Dir: "x", Mount: "/mnt/file"}}, false},
		{[]Share{outer, {Dir: "x", Mount: "/mntd"}}, true},
		{[]Share{outer, {Dir: "x"}}, true},
		{[]Share{{Dir: dir, Mount: "/mnt"}, {Dir: "x", Mount: "/mnt/d"}}, true},
		{[]Share{outer, {Dir: "x", Mount: "/mnt/b"}, {Dir: "y", Mount: "/mnt/b/d"}}, true},
	} {
		c := Config{Shares: test.shares}
		err := c.mountable(nil)
		if (err == nil) != test.ok || err != nil && !strings.Contains(err.Error(), "mkdir -p "+dir+"/") {
			t.Errorf("%+v: %v", test.shares, err)
		}
	}
}
