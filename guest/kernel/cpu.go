package kernel

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// cpuModule takes the kernel from the Go module github.com/u-root/cpu, in the version that
// go.mod names.
func cpuModule(ctx context.Context, _, into string) (string, error) {
	const path = "github.com/u-root/cpu"
	root, err := Root()
	if err != nil {
		return "", err
	}
	out, err := Command(ctx, root, "go", "mod", "download", "-json", path)
	if err != nil {
		return "", err
	}
	var module struct{ Version, Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	err = copyFile(filepath.Join(into, "vmlinuz"), filepath.Join(module.Dir, "vm", "kernel_linux_amd64"))
	return path + " " + module.Version, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
