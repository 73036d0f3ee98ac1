package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExamine(t *testing.T) {
	for _, test := range []struct {
		name    string
		examine func(path string) finding
		file    string // "" for none
		state   string
		what    string
	}{
		{"Intel", examineCPU, "processor : 0\nflags\t\t: fpu vmx\n", "ok", "(vmx)"},
		{"AMD", examineCPU, "flags : svm\n", "ok", "(svm)"},
		{"neither", examineCPU, "flags : fpu vmxish\nvmx flags : vnmi\n", "LIMIT", "neither vmx nor svm"},
		{"no cpuinfo", examineCPU, "", "note", "no such file"},

		{"huge pages", examineHugePages, "always [madvise] never\n", "ok", "transparent huge pages"},
		{"huge pages always", examineHugePages, "[always] madvise never\n", "ok", "transparent huge pages"},
		{"huge pages never", examineHugePages, "always madvise [never]\n", "note", "no transparent huge pages"},
		{"no huge pages", examineHugePages, "", "note", "no transparent huge pages"},

		{"memory", examineMemory, "MemTotal: 9 kB\nMemAvailable:   2097152 kB\n", "ok", "2048 MiB of memory"},
		{"memory unknown", examineMemory, "MemTotal: 9 kB\n", "note", "does not tell"},
		{"no meminfo", examineMemory, "", "note", "no such file"},

		{"ping", examinePing, "0\t2147483647\n", "ok", "can ping"},
		{"ping of this group", examinePing, fmt.Sprintf("%d %[1]d\n", os.Getegid()), "ok", "can ping"},
		{"no ping", examinePing, "1\t0\n", "note", "cannot ping"},
		{"ping unknown", examinePing, "none\n", "note", "not two numbers"},
		{"no ping file", examinePing, "", "note", "no such file"},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if test.file != "" {
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f := test.examine(path)
		if f.state != test.state || !strings.Contains(f.what, test.what) || (f.do == "") != (f.state == "ok") {
			t.Errorf("%s: %+v", test.name, f)
		}
	}
}

func TestExamineLookups(t *testing.T) {
	for openat2, state := range map[bool]string{true: "ok", false: "note"} {
		if f := examineLookups(openat2); f.state != state || !strings.Contains(f.what, "openat2") || (f.do == "") != openat2 {
			t.Errorf("%v: %+v", openat2, f)
		}
	}
}

func TestReport(t *testing.T) {
	ok, note := finding{"ok", "fine", ""}, finding{"note", "slow", "hurry"}
	limit, fail := finding{"LIMIT", "small", "grow"}, finding{"FAIL", "broken", "mend"}
	for _, test := range []struct {
		found []finding
		can   bool
		last  string
	}{
		{[]finding{ok}, true, "This host can run guests.\n"},
		{[]finding{ok, note}, true, "ok    fine\nnote  slow\n      -> hurry\nThis host can run guests.\n"},
		{[]finding{limit, ok}, false, "This host can run small test guests, but full kernels will not run.\n"},
		{[]finding{limit, fail}, false, "This host cannot run guests.\n"},
		{[]finding{fail, ok}, false, "This host cannot run guests.\n"},
	} {
		var b bytes.Buffer
		if can := report(&b, test.found); can != test.can || !strings.HasSuffix(b.String(), test.last) {
			t.Errorf("%v: %v\n%s", test.found, can, &b)
		}
	}
}
