package vmm_test

import (
	"go/ast"
	"testing"
)

// TestLogs: log output goes to a given logger, which knows the guest, the level and the
// destination. Only the command has a default logger.
func TestLogs(t *testing.T) {
	defaults := map[string]bool{}
	for _, name := range []string{"Debug", "Info", "Warn", "Error", "Log", "DebugContext", "InfoContext", "WarnContext", "ErrorContext", "Default", "SetDefault"} {
		defaults[name] = true
	}
	for _, s := range sources(t) {
		if s.test() || match("cmd/**", s.pkg()) || match("test/**", s.pkg()) || match("guest/**", s.pkg()) {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "slog" && defaults[call.Sel.Name] {
				t.Errorf("%s uses slog.%s: take a logger from whoever makes the object", s.name, call.Sel.Name)
			}
			return true
		})
	}
}
