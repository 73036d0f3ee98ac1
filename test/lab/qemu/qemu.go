// Package qemu finds the QEMU that emulates the lab, and that benchmarks compare against.
// Debian 12's own QEMU (7.2) is not good enough: in it, a guest of a guest dies in one boot
// out of some dozens, and now and then so does the KVM under it.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"vmm/guest/kernel"
)

// Name is the name of QEMU's program.
const Name = "qemu-system-x86_64"

// Least is the first major version whose AMD-V emulation is sound enough.
const Least = 10

// Program is a QEMU that can be run.
type Program struct {
	Argv    []string // the program, and the flags that it always needs
	Version string
}

// Find returns the installed QEMU if it is new enough, else the one in the cache, which it
// fetches from the distribution's backports if need be. If there are no backports, an older
// QEMU is better than no lab; Version shows which it is.
func Find(ctx context.Context) (Program, error) {
	path, err := exec.LookPath(Name)
	if err != nil {
		return Program{}, fmt.Errorf("%w: run `make deps`, or install qemu-system-x86", err)
	}
	installed, err := ask(ctx, []string{path})
	if err != nil || major(installed.Version) >= Least {
		return installed, err
	}
	if kept, err := find(ctx); err == nil {
		return kept, nil
	}
	dir, err := folder()
	if err != nil {
		return Program{}, err
	}
	if err := kernel.Keep(dir, func(into string) (string, error) { return fetch(ctx, into) }); err != nil {
		fmt.Fprintf(os.Stderr, "qemu: no newer one than %s, with which guests die now and then: %v\n", installed.Version, err)
		return installed, nil
	}
	return find(ctx)
}

func folder() (string, error) {
	cache, err := kernel.Cache()
	return filepath.Join(cache, "qemu"), err
}

// find returns the QEMU in the cache, repaired. The QEMU looks for its firmware in the cache
// first, then in the installed QEMU's directories.
func find(ctx context.Context) (Program, error) {
	dir, err := folder()
	if err != nil {
		return Program{}, err
	}
	argv := []string{filepath.Join(dir, "usr/bin", Name)}
	if err := mend(argv[0]); errors.Is(err, errUnknown) {
		fmt.Fprintf(os.Stderr, "qemu: not mended, so that guests die now and then: %v\n", err)
	} else if err != nil {
		return Program{}, err
	}
	for _, data := range []string{"usr/share/qemu", "usr/share/seabios"} {
		argv = append(argv, "-L", filepath.Join(dir, data))
	}
	for _, data := range []string{"/usr/share/qemu", "/usr/share/seabios"} {
		argv = append(argv, "-L", data)
	}
	return ask(ctx, argv)
}

var version = regexp.MustCompile(`^QEMU emulator version (\S+)`)

// ask asks a QEMU for its version.
func ask(ctx context.Context, argv []string) (Program, error) {
	out, err := kernel.Command(ctx, "", argv[0], "--version")
	if err != nil {
		return Program{}, err
	}
	m := version.FindSubmatch(out)
	if m == nil {
		return Program{}, fmt.Errorf("%s --version: %q", argv[0], out)
	}
	return Program{argv, string(m[1])}, nil
}

func major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(first) // 0 if it is not a number: too old
	return n
}

// packages are QEMU's own packages. The libraries that they need are the installed QEMU's.
var packages = []string{"qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"}

// fetch downloads QEMU from the backports of this host's Debian release. It uses an apt with
// its configuration and lists in into, and leaves the host's own unchanged. The packages'
// signatures are checked as usual.
func fetch(ctx context.Context, into string) (string, error) {
	out, err := kernel.Command(ctx, "", "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(CODENAME) $(ORIGIN)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	source, suite, err := backports(string(out))
	if err != nil {
		return "", err
	}
	apt := filepath.Join(into, "apt")
	list := filepath.Join(apt, "sources.list")
	if err := errors.Join(os.MkdirAll(filepath.Join(apt, "lists", "partial"), 0o755), os.WriteFile(list, []byte(source), 0o644)); err != nil {
		return "", err
	}
	aptGet := func(arguments ...string) error {
		_, err := kernel.Command(ctx, into, append([]string{"apt-get", "-qq",
			"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::State::lists=" + filepath.Join(apt, "lists"), "-o", "Dir::Cache=" + apt}, arguments...)...)
		return err
	}
	fmt.Fprintf(os.Stderr, "fetch QEMU from %s\n", suite)
	if err := errors.Join(aptGet("update"), aptGet(append([]string{"download"}, packages...)...)); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(into, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range debs {
		if _, err := kernel.Command(ctx, into, "dpkg-deb", "-x", deb, "."); err != nil {
			return "", err
		}
		os.Remove(deb)
	}
	return "QEMU of " + suite, os.RemoveAll(apt)
}

// backports returns the sources.list line for the backports of the Debian release in apt's
// sources. targets lists those, one "URI CODENAME ORIGIN" a line.
func backports(targets string) (line, suite string, err error) {
	for target := range strings.Lines(targets) {
		f := strings.Fields(target)
		// Updates and security have a dash, and other repositories another origin.
		if len(f) == 3 && f[2] == "Debian" && !strings.Contains(f[1], "-") {
			suite = f[1] + "-backports"
			return fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", f[0], suite), suite, nil
		}
	}
	return "", "", errors.New("apt has no source of Debian")
}
