package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmm/machine"
)

func TestConsolePortFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want consolePort
		ok   bool
	}{
		{"agent=unix:/run/a=b", consolePort{"agent", "unix:/run/a=b"}, true},
		{"log=file:out", consolePort{"log", "file:out"}, true},
		{"x=pty", consolePort{"x", "pty"}, true},
		{"x", consolePort{}, false},
		{"x=", consolePort{}, false},
		{"=pty", consolePort{}, false},
		{"", consolePort{}, false},
	} {
		var p consolePorts
		err := p.Set(test.text)
		if (err == nil) != test.ok || err == nil && p[0] != test.want {
			t.Errorf("%q: %+v, %v", test.text, p, err)
		}
		if err != nil && !strings.Contains(err.Error(), "NAME=unix:PATH") {
			t.Errorf("%q: %v does not say what to do", test.text, err)
		}
	}
}

// TestConsolePortOpen: what is opened, and what a failure is blamed on.
func TestConsolePortOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	p := consolePorts{{"a", "file:" + file}, {"b", "unix:" + filepath.Join(dir, "s")}, {"c", "pty"}}
	ports := p.config()
	var stderr bytes.Buffer
	opened, err := p.open(ports, nil, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		if port.Stream == nil {
			t.Errorf("port %s is not connected", port.Name)
		}
	}
	if !strings.Contains(stderr.String(), "the guest's port c is /dev/pts/") {
		t.Errorf("%q", &stderr)
	}
	if err := opened.begin(); err != nil {
		t.Error(err)
	}
	opened.close()
	if _, err := os.Lstat(filepath.Join(dir, "s")); err == nil {
		t.Error("the socket is left")
	}
	for _, test := range []struct {
		spec string
		code int
		want string
	}{
		{"stdio", exitUsage, `--console-port x: "stdio": want file:PATH, unix:PATH or pty`},
		{"unix:", exitUsage, "the path is missing"},
		{"unix:/nowhere/at/all", exitHost, "choose another"},
		{"file:/nowhere/at/all", exitHost, "choose another"},
		{"unix:" + file, exitHost, "not a socket"},
	} {
		p := consolePorts{{"first", "file:" + file}, {"x", test.spec}}
		_, err := p.open(p.config(), nil, &stderr)
		var status *statusError
		if !errors.As(err, &status) || status.code != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.spec, err)
		}
	}
}

// TestConsoleErrors: errors name the flag.
func TestConsoleErrors(t *testing.T) {
	for _, test := range []struct {
		c    machine.Config
		want string
	}{
		{machine.Config{Console: "vga"}, `--console: "vga"; must be serial or virtio`},
		{machine.Config{Ports: []machine.Port{{Name: "a b"}}}, `--console-port: name "a b"; must be 1 to 64 letters, digits, dots, dashes and underscores, such as org.test.0`},
		{machine.Config{Ports: []machine.Port{{Name: "a"}, {Name: "a"}}}, "--console-port: a: given twice; names must differ"},
	} {
		test.c.Kernel, test.c.CPUs, test.c.Memory = "x", 1, 64<<20
		if err := flagName(test.c.Validate()); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}
