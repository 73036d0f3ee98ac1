//go:build tools

package kernel

// The module carries a kernel (see cpu.go). As an import it stays in go.mod.
import _ "github.com/u-root/cpu/vm"
