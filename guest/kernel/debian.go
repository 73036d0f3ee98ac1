package kernel

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debian fetches the kernel that a meta package depends on, by apt, without
// installing it.
func debian(meta string) func(context.Context, string, string) (string, error) {
	return func(ctx context.Context, _, into string) (string, error) {
		pkg, version, err := resolve(ctx, meta)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(os.Stderr, "fetch %s %s\n", pkg, version)
		if _, err := Command(ctx, into, "apt-get", "-qq", "download", pkg+"="+version); err != nil {
			return "", err
		}
		debs, err := filepath.Glob(filepath.Join(into, "*.deb"))
		if err != nil || len(debs) != 1 {
			return "", fmt.Errorf("apt-get download %s: left %d packages, want 1", pkg, len(debs))
		}
		if _, err := Command(ctx, into, "dpkg-deb", "-x", debs[0], "x"); err != nil {
			return "", err
		}
		if err := pick(into); err != nil {
			return "", fmt.Errorf("%s: %w", pkg, err)
		}
		return pkg + " " + version, os.Remove(debs[0])
	}
}

// pick takes the kernel and its modules from the unpacked package in into/x. Debian moved
// /lib into /usr in release 13.
func pick(into string) error {
	x := filepath.Join(into, "x")
	for name, patterns := range map[string][]string{
		"vmlinuz": {"boot/vmlinuz-*"},
		"config":  {"boot/config-*"},
		"modules": {"lib/modules/*", "usr/lib/modules/*"},
	} {
		var found []string
		for _, pattern := range patterns {
			paths, err := filepath.Glob(filepath.Join(x, pattern))
			if err != nil {
				return err
			}
			found = append(found, paths...)
		}
		if len(found) != 1 {
			return fmt.Errorf("the package has %d of %s, want 1", len(found), patterns[0])
		}
		if err := os.Rename(found[0], filepath.Join(into, name)); err != nil {
			return err
		}
	}
	return os.RemoveAll(x)
}

// resolve finds the package of the kernel itself.
func resolve(ctx context.Context, meta string) (pkg, version string, err error) {
	show, err := Command(ctx, "", "apt-cache", "show", "--no-all-versions", meta)
	if err == nil {
		if pkg, version, err = parseDepends(show); err == nil {
			return pkg, version, nil
		}
	}
	// A fresh machine does not have any package lists yet.
	update := []string{"apt-get", "-qq", "update"}
	if os.Geteuid() != 0 {
		update = append([]string{"sudo"}, update...)
	}
	if _, err := Command(ctx, "", update...); err != nil {
		return "", "", err
	}
	if show, err = Command(ctx, "", "apt-cache", "show", "--no-all-versions", meta); err != nil {
		return "", "", err
	}
	return parseDepends(show)
}

// parseDepends reads the record of a kernel meta package, in which one line is
// "Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)".
func parseDepends(record []byte) (pkg, version string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(record))
	for lines.Scan() {
		depends, ok := strings.CutPrefix(lines.Text(), "Depends:")
		if !ok {
			continue
		}
		for dep := range strings.SplitSeq(depends, ",") {
			fields := strings.Fields(dep)
			if len(fields) == 3 && strings.HasPrefix(fields[0], "linux-image-") && fields[1] == "(=" {
				return fields[0], strings.TrimSuffix(fields[2], ")"), nil
			}
		}
	}
	return "", "", fmt.Errorf("apt-cache show: no line \"Depends: linux-image-... (= VERSION)\"")
}

// Command runs a program quietly in dir, and returns its standard output. What the program
// printed is part of the error.
func Command(ctx context.Context, dir string, argv ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		said := bytes.TrimSpace(append(stdout.Bytes(), stderr.Bytes()...))
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said)
	}
	return stdout.Bytes(), nil
}
