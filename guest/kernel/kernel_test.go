package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseDepends(t *testing.T) {
	for _, test := range []struct{ record, want string }{
		{"Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSection: kernel\n", "linux-image-6.1.0-56-amd64 6.1.192-2"},
		{"Depends: kmod, linux-image-6.12.1-amd64 (= 6.12.1-1), x (>= 1)\n", "linux-image-6.12.1-amd64 6.12.1-1"},
		{"Depends: linux-image-6.1 (>= 6)\n", ""},
		{"Depends:\n", ""},
		{"", ""},
	} {
		pkg, version, err := parseDepends([]byte(test.record))
		if got := strings.TrimSpace(pkg + " " + version); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v", test.record, got, err)
		}
	}
}

func FuzzParseDepends(f *testing.F) {
	f.Add([]byte("Depends: linux-image-1 (= 2)"))
	f.Fuzz(func(t *testing.T, record []byte) {
		pkg, version, err := parseDepends(record)
		if err == nil && (!strings.HasPrefix(pkg, "linux-image-") || strings.ContainsAny(pkg+version, " \n")) {
			t.Errorf("%q %q", pkg, version)
		}
	})
}

// TestPick takes a kernel out of both layouts that Debian has used.
func TestPick(t *testing.T) {
	for _, lib := range []string{"lib", "usr/lib", ""} {
		into := t.TempDir()
		paths := []string{"boot/vmlinuz-6", "boot/config-6"}
		if lib != "" {
			paths = append(paths, lib+"/modules/6/modules.builtin")
		}
		for _, p := range paths {
			p = filepath.Join(into, "x", p)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := pick(into)
		if (err == nil) != (lib != "") {
			t.Errorf("%q: %v", lib, err)
		}
		if err == nil && !(exists(filepath.Join(into, "vmlinuz")) && exists(filepath.Join(into, "modules", "modules.builtin"))) {
			t.Errorf("%q: not all is there", lib)
		}
	}
}

func TestFind(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("VMM_CACHE", cache)
	if _, err := Find("cloud"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty cache: %v", err)
	}
	if _, err := Find("none"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a kernel that there is not: %v", err)
	}
	temp := filepath.Join(cache, "kernels", ".new")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := publish(temp, filepath.Join(cache, "kernels", "cloud"), "linux 6"); err != nil {
		t.Fatal(err)
	}
	k, err := Find("cloud")
	if err != nil || k.Version != "linux 6" || k.Modules != "" {
		t.Errorf("%+v, %v", k, err)
	}
	// An existing kernel is used as it is, offline.
	if again, err := Fetch(t.Context(), "cloud"); err != nil || again != k {
		t.Errorf("%+v, %v", again, err)
	}
}
