package roster

import (
	"fmt"
	"os"
	"path/filepath"
)

// Dir returns the runtime directory that is used unless told otherwise:
// VMM_RUNTIME_DIR, or vmm in XDG_RUNTIME_DIR, or one of the user's own in /run
// (root) or in the directory of temporary files.
func Dir() string {
	if dir := os.Getenv("VMM_RUNTIME_DIR"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "vmm")
	}
	if os.Geteuid() == 0 {
		return "/run/vmm"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("vmm-%d", os.Geteuid()))
}
