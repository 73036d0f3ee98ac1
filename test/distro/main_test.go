package main

import (
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	const targets = `http://mirror.example/debian/ bookworm main Debian
http://mirror.example/debian/ bookworm contrib Debian
http://mirror.example/debian/ bookworm-updates main Debian
http://mirror.example/security/ bookworm-security main Debian
http://mirror.example/debian/ bookworm-backports main Debian Backports
http://mirror.example/debian/ bookworm-backports main Debian
https://other.example/ stable main Other
`
	lines, suites, err := sources(targets)
	if err != nil || suites != "bookworm bookworm-updates bookworm-security" || strings.Count(lines, "deb [signed-by=/") != 3 ||
		!strings.Contains(lines, "] http://mirror.example/security/ bookworm-security main\n") {
		t.Errorf("%q, %q, %v", lines, suites, err)
	}
	if _, _, err := sources("https://other.example/ stable main Other\n"); err == nil {
		t.Error("a host without Debian's packages has sources of them")
	}
}
