package qemu

import "testing"

func TestBackports(t *testing.T) {
	const good = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian/ bookworm-backports main\n"
	for _, test := range []struct{ targets, want string }{
		{"http://mirror/security/ bookworm-security Debian\nhttp://mirror/debian/ bookworm Debian\n", good},
		{"http://other/ bookworm Other\n", ""},
		{"http://mirror/debian/ bookworm-updates Debian\n", ""},
		{"", ""},
	} {
		line, _, err := backports(test.targets)
		if line != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v", test.targets, line, err)
		}
	}
}

func TestMajor(t *testing.T) {
	for version, want := range map[string]int{"7.2.22": 7, "10.0.2": 10, "11": 11, "": 0, "git": 0} {
		if got := major(version); got != want {
			t.Errorf("%q: %d, want %d", version, got, want)
		}
	}
}
