//go:build tools

package kernel

// The module contains a kernel (see cpu.go). The import keeps it in go.mod.
import _ "github.com/u-root/cpu/vm"
