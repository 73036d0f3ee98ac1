// Package kernel keeps stock kernels in a cache folder, for the guests of the tests and of
// `make run`, and for the lab. A kernel is kept as its distributor built it, and the cache
// records its version. Once cached, it is used without a network.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Kernel is a kernel in the cache.
type Kernel struct {
	Name    string // "cloud", "generic" or "cpu"
	Version string // package and version, for people
	Image   string // path of the bzImage
	Modules string // path of its lib/modules/RELEASE; "" if it has no modules
}

// source says where a kernel comes from.
type source struct {
	fetch func(ctx context.Context, name, into string) (version string, err error)
	what  string
}

var sources = map[string]source{
	"cloud":   {debian("linux-image-cloud-amd64"), "Debian's kernel for virtual machines"},
	"generic": {debian("linux-image-amd64"), "Debian's kernel for PCs"},
	"cpu":     {cpuModule, "the kernel in the Go module github.com/u-root/cpu; no modules"},
}

// Names lists the available kernels.
func Names() []string { return []string{"cloud", "generic", "cpu"} }

// Cache returns the cache folder: $VMM_CACHE, or .cache at the root of the
// checkout that holds the current directory.
func Cache() (string, error) {
	if dir := os.Getenv("VMM_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := Root()
	return filepath.Join(root, ".cache"), err
}

// Root returns the checkout that holds the current directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		line, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(line), "module vmm\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no checkout of vmm above the current directory: run this inside one")
		}
		dir = up
	}
}

// Find returns a kernel from the cache, or an error that is fs.ErrNotExist.
func Find(name string) (Kernel, error) {
	if _, ok := sources[name]; !ok {
		return Kernel{}, fmt.Errorf("kernel %q: unknown, want one of %s", name, strings.Join(Names(), ", "))
	}
	cache, err := Cache()
	if err != nil {
		return Kernel{}, err
	}
	dir := filepath.Join(cache, "kernels", name)
	version, err := os.ReadFile(filepath.Join(dir, "VERSION"))
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: not in the cache, run `go run ./test/fetch %s`: %w", name, name, err)
	}
	k := Kernel{Name: name, Version: strings.TrimSpace(string(version)), Image: filepath.Join(dir, "vmlinuz")}
	if modules := filepath.Join(dir, "modules"); exists(modules) {
		k.Modules = modules
	}
	return k, nil
}

// Fetch returns a kernel from the cache, and downloads it first if need be.
func Fetch(ctx context.Context, name string) (Kernel, error) {
	k, err := Find(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	cache, err := Cache()
	if err != nil {
		return Kernel{}, err
	}
	err = Keep(filepath.Join(cache, "kernels", name), func(into string) (string, error) {
		return sources[name].fetch(ctx, name, into)
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s (%s): %w", name, sources[name].what, err)
	}
	return Find(name)
}

// Keep makes the folder dir of the cache, whole or not at all. fetch fills a temporary
// folder beside dir and returns the version, which goes into dir's file VERSION. If
// another process is faster, its folder stays.
func Keep(dir string, fetch func(into string) (version string, err error)) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	// Beside the final place, so that one rename publishes it.
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	version, err := fetch(temp)
	if err != nil {
		return err
	}
	return publish(temp, dir, version)
}

func publish(temp, dir, version string) error {
	if err := os.WriteFile(filepath.Join(temp, "VERSION"), []byte(version+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	err := os.Rename(temp, dir)
	if err != nil && exists(filepath.Join(dir, "VERSION")) {
		return nil // another process was faster
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
