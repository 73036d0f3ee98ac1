package roster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type placeTest struct {
	name   string
	tree   []string
	owners map[string]int // other than us
	vmm    string
	xdg    string // in the test's directory
	guests string // where guests exist
	want   string
}

// TestPlace: logins, cron, sudo and su of one user have one runtime directory.
func TestPlace(t *testing.T) {
	const stranger = 12345
	for _, test := range []placeTest{
		{name: "VMM_RUNTIME_DIR", vmm: "/a", xdg: "run/user/U", tree: []string{"run/user/U/"}, want: "/a"},
		{name: "a login", xdg: "run/user/U", tree: []string{"run/user/U/"}, want: "run/user/U/vmm"},
		{name: "cron while one is logged in", tree: []string{"run/user/U/"}, want: "run/user/U/vmm"},
		{name: "cron", want: "last"},
		{name: "a login after cron had started one", xdg: "run/user/U", tree: []string{"run/user/U/"}, guests: "last", want: "last"},
		{name: "cron then", tree: []string{"run/user/U/"}, guests: "last", want: "last"},
		{name: "a login with one of its own", xdg: "run/user/U", tree: []string{"run/user/U/"}, guests: "run/user/U/vmm", want: "run/user/U/vmm"},
		{name: "sudo or su from a login", xdg: "run/user/7", tree: []string{"run/user/7/", "run/user/U/"}, owners: map[string]int{"run/user/7": stranger}, want: "run/user/U/vmm"},
		{name: "sudo from a login of one who has left", xdg: "run/user/7", tree: []string{"run/user/U/"}, want: "run/user/U/vmm"},
		{name: "sudo from a login, none of our own", xdg: "run/user/7", tree: []string{"run/user/7/"}, owners: map[string]int{"run/user/7": stranger}, want: "last"},
		{name: "a choice", xdg: "mine", tree: []string{"mine/", "run/user/U/"}, guests: "last", want: "mine/vmm"},
		{name: "a choice yet to be made", xdg: "mine", tree: []string{"run/user/U/"}, want: "mine/vmm"},
		{name: "no path", xdg: "-", tree: []string{"run/user/U/"}, want: "run/user/U/vmm"},
		{name: "a link to a login", tree: []string{"x/", "run/user/U->../../x"}, want: "last"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if len(test.owners) > 0 && os.Geteuid() != 0 {
				t.Skip("needs root, for files of others")
			}
			test.run(t)
		})
	}
	if !filepath.IsAbs(Dir()) {
		t.Error(Dir())
	}
}

func (test placeTest) run(t *testing.T) {
	us := os.Geteuid()
	dir := t.TempDir()
	run, temp := filepath.Join(dir, "run"), filepath.Join(dir, "tmp")
	last := filepath.Join(temp, "vmm-"+itoa(us))
	if us == 0 {
		last = filepath.Join(run, "vmm")
	}
	path := func(name string) string {
		if name == "last" {
			return last
		}
		return filepath.Join(dir, strings.ReplaceAll(name, "U", itoa(us)))
	}
	tree(t, dir, "run/", "tmp/")
	for _, name := range test.tree {
		tree(t, dir, strings.ReplaceAll(name, "U", itoa(us)))
	}
	for name, of := range test.owners {
		if err := os.Chown(path(name), of, -1); err != nil {
			t.Fatal(err)
		}
	}
	if test.guests != "" {
		r, err := Create(path(test.guests))
		if err != nil {
			t.Fatal(err)
		}
		claim(t, r, "web", true)
	}
	env := map[string]string{"VMM_RUNTIME_DIR": test.vmm}
	if test.xdg == "-" {
		env["XDG_RUNTIME_DIR"] = "relative"
	} else if test.xdg != "" {
		env["XDG_RUNTIME_DIR"] = path(test.xdg)
	}
	want := test.want
	if !filepath.IsAbs(want) {
		want = path(want)
	}
	if got := place(func(k string) string { return env[k] }, run, temp, us); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
