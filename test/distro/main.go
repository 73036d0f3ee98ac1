// Distro puts a Debian with systemd into the cache, as a disk image with its
// kernel and initramfs, and prints where they are. It is the release that this
// host runs, made of the packages of the host's own sources; docs/guest.md says
// what is in it. An image that is there already is left alone, unless
// another script made it.
package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vmm/guest/kernel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := fetch(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "distro:", err)
		os.Exit(1)
	}
	for _, name := range []string{"root.img", "vmlinuz", "initrd.img"} {
		fmt.Println(filepath.Join(dir, name))
	}
}

// fetch returns the image's folder, after it has put it there if need be.
func fetch(ctx context.Context) (string, error) {
	cache, err := kernel.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "distro")
	if version, err := os.ReadFile(filepath.Join(dir, "VERSION")); err == nil {
		if strings.Contains(string(version), recipe()) {
			return dir, nil
		}
		if err := os.RemoveAll(dir); err != nil { // one of an older script
			return "", err
		}
	}
	return dir, kernel.Keep(dir, func(into string) (string, error) { return build(ctx, into) })
}

//go:embed image.sh
var script string

// build makes the image and returns the sources that it is made of.
func build(ctx context.Context, into string) (version string, err error) {
	targets, err := kernel.Command(ctx, "", "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	lines, suites, err := sources(string(targets))
	if err != nil {
		return "", err
	}
	argv := []string{"sh", "-c", script, "image.sh", into}
	if os.Geteuid() != 0 {
		argv = append(rootless, argv...)
	}
	fmt.Fprintf(os.Stderr, "make an image of Debian %s: some minutes\n", suites)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(lines), os.Stderr, os.Stderr
	// mmdebstrap unmounts what it has mounted; killed, it could not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("image.sh: %w", err)
	}
	return fmt.Sprintf("Debian %s, made by %s", suites, recipe()), nil
}

// recipe tells one script from another.
func recipe() string {
	sum := sha256.Sum256([]byte(script))
	return hex.EncodeToString(sum[:8])
}

// rootless makes a user root of a namespace with the user's subordinate IDs
// (subuid(5)), in which packages can be unpacked and mke2fs sees their owners.
var rootless = []string{"unshare", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--"}

// sources returns the lines of sources.list for Debian's own packages, of apt's
// sources, a line "URI CODENAME COMPONENT ORIGIN" each. Others (backports,
// repositories of third parties) stay out.
func sources(targets string) (lines, suites string, err error) {
	var list, names []string
	for target := range strings.Lines(targets) {
		f := strings.Fields(target)
		if len(f) != 4 || f[3] != "Debian" || f[2] != "main" || strings.HasSuffix(f[1], "-backports") {
			continue
		}
		list = append(list, fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", f[0], f[1]))
		names = append(names, f[1])
	}
	if len(list) == 0 {
		return "", "", errors.New("apt has no source of Debian")
	}
	return strings.Join(list, ""), strings.Join(names, " "), nil
}
