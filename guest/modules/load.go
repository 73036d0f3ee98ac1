package modules

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Load puts the unpacked module at path into the running kernel. A module that
// is there already is no error.
func Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", path, err)
	}
	return nil
}
