package vmm_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// arrows says which of our packages a package may import: the picture in
// docs/design.md. The first matching rule applies to a package; a package without a
// rule may not exist. "*" stands for one path element, "**" at the end for any number.
var arrows = []struct{ pkg, may string }{
	// The lowest packages, which import few of ours or none.
	{"task", ""},
	{"bus", ""},
	{"logline", ""},
	{"eventfd", ""},
	{"hostfile", ""},
	{"disk", "hostfile"},
	{"hostdir", "hostfile rate"},
	{"ethernet", ""},
	{"rate", ""},
	{"ethernet/*", "ethernet logline rate"},
	{"tap", "ethernet eventfd"},
	{"usernet", "ethernet"},
	{"kvm", ""},
	{"stream", ""},
	{"unixsock", "hostfile"},
	{"roster", ""},
	{"histogram", ""},
	{"hostsock", "eventfd hostfile logline stream unixsock"},
	{"mem", ""},
	{"console", "unixsock"},
	{"boot/acpi", ""},
	{"boot", "hostfile mem boot/acpi"},

	// Devices know neither KVM, nor the machine, nor each other.
	{"devices/pc", "bus eventfd"},
	{"devices/serial", "bus eventfd"},
	{"devices/pci", "bus eventfd mem"},
	{"devices/virtio/virtq", "mem"},
	{"devices/virtio/virtiotest", "bus eventfd mem devices/pci devices/virtio devices/virtio/virtq"},
	{"devices/virtio", "bus eventfd histogram logline mem devices/pci devices/virtio/virtq"},
	{"devices/virtio/net", "ethernet histogram mem devices/virtio devices/virtio/virtq"},
	{"devices/virtio/vsock", "mem stream devices/virtio devices/virtio/virtq"},
	{"devices/virtio/*", "eventfd histogram logline mem devices/virtio devices/virtio/virtq"},

	// What runs inside a guest, and what builds it.
	{"guest/payload", "kvm mem"},
	{"guest/**", "guest/**"},

	// The machine knows KVM and the devices; the command knows the machine.
	{"machine", "boot boot/acpi bus console disk ethernet/** eventfd hostdir hostfile hostsock kvm logline mem tap usernet devices/**"},
	{"api", ""},
	{"client", "api roster"},
	{"service", "api devices/virtio devices/virtio/virtq histogram logline machine roster unixsock"},
	{"cmd/vmm", "api boot client console logline machine roster service"},
	{"test/**", "**"},

	{".", ""}, // this file
}

// below is what every package may import, because it starts goroutines.
const below = "task"

// testsMay is what tests may import besides their own package and its imports.
const testsMay = "bus client eventfd hostsock mem guest/** test/** devices/virtio/virtiotest"

// The length limits, and in longer the exceptions with their reasons. A key is a file,
// or a file, a colon and a function.
const (
	maxFunction = 60
	maxFile     = 500
)

var longer = map[string]string{}

// dependencies is the table that must list every third-party module.
const dependencies = "docs/dependencies.md"

// A source is a Go file. Files for other systems and build tags count too.
type source struct {
	name  string // with slashes, relative to the module's root
	ast   *ast.File
	lines func(ast.Node) int
	size  int // lines
}

func (s source) pkg() string  { return path.Dir(s.name) }
func (s source) test() bool   { return strings.HasSuffix(s.name, "_test.go") }
func (s source) unsafe() bool { return strings.HasSuffix(s.name, "_unsafe.go") }

// imports calls f for each path that s imports.
func (s source) imports(f func(imp string)) {
	for _, spec := range s.ast.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value) // the parser has checked the syntax
		f(imp)
	}
}

func sources(t *testing.T) (all []source) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || exists(filepath.Join(name, "go.mod"))):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1 }
		all = append(all, source{filepath.ToSlash(name), f, lines, fset.File(f.Pos()).LineCount()})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// TestArrows: imports between our packages point downwards only.
func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		may, ok := rule(s.pkg())
		if !ok {
			t.Errorf("%s: package %s is in no rule of imports_test.go: say what it may import", s.name, s.pkg())
			continue
		}
		if s.test() {
			may += " " + testsMay + " " + s.pkg()
		}
		s.imports(func(imp string) {
			if ours, ok := strings.CutPrefix(imp, "vmm/"); ok && ours != below && !matchAny(may, ours) {
				t.Errorf("%s imports %s: the arrows point downwards only", s.name, imp)
			}
		})
	}
}

func rule(pkg string) (may string, ok bool) {
	for _, r := range arrows {
		if match(r.pkg, pkg) {
			return r.may, true
		}
	}
	return "", false
}

func matchAny(patterns, pkg string) bool {
	for p := range strings.FieldsSeq(patterns) {
		if match(p, pkg) {
			return true
		}
	}
	return false
}

func match(pattern, pkg string) bool {
	if above, ok := strings.CutSuffix(pattern, "**"); ok {
		return strings.HasPrefix(pkg+"/", above)
	}
	ok, err := path.Match(pattern, pkg)
	if err != nil {
		panic(err)
	}
	return ok
}

// TestUnsafe: only files named *_unsafe.go import unsafe, and all of them do.
func TestUnsafe(t *testing.T) {
	for _, s := range sources(t) {
		uses := false
		s.imports(func(imp string) { uses = uses || imp == "unsafe" })
		switch {
		case uses && !s.unsafe():
			t.Errorf("%s imports unsafe: move that part to a file named *_unsafe.go", s.name)
		case !uses && s.unsafe():
			t.Errorf("%s does not import unsafe: give it another name", s.name)
		}
	}
}

// TestGoroutines: package task starts all goroutines, so that a panic on one has an
// owner.
func TestGoroutines(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.pkg() == below || matchAny("guest/** test/** devices/virtio/virtiotest", s.pkg()) {
			continue // below itself, and other programs and tests
		}
		for _, what := range starts(s.ast) {
			t.Errorf("%s: %s: start it by package task", s.name, what)
		}
	}
}

// starts returns what in f starts a goroutine or helps to.
func starts(f *ast.File) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "a go statement")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				switch name := x.Name + "." + n.Sel.Name; name {
				case "time.AfterFunc", "context.AfterFunc", "sync.WaitGroup", "errgroup.Group":
					found = append(found, name)
				}
			}
		}
		return true
	})
	return found
}

// TestStarts checks what starts finds.
func TestStarts(t *testing.T) {
	const text = "package p\nfunc f() { go g(); time.AfterFunc(0, g); defer context.AfterFunc(c, g)(); var w sync.WaitGroup; w.Go(g); new(errgroup.Group); o.Go(g) }"
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found := starts(f); len(found) != 5 {
		t.Errorf("found %q", found)
	}
}

// TestLength: files and functions stay within the length limits.
func TestLength(t *testing.T) {
	excused := map[string]bool{}
	check := func(name, what string, lines, most int) {
		if lines <= most {
			return
		}
		if longer[name] == "" {
			t.Errorf("%s: %s of %d lines, more than %d: split it, or give the reason in imports_test.go", name, what, lines, most)
		}
		excused[name] = true
	}
	for _, s := range sources(t) {
		if ast.IsGenerated(s.ast) {
			continue // not meant for readers
		}
		check(s.name, "a file", s.size, maxFile)
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				check(fmt.Sprintf("%s:%s", s.name, f.Name.Name), "a function", s.lines(f), maxFunction)
			}
		}
	}
	for name := range longer {
		if !excused[name] {
			t.Errorf("%s needs no exception any more: take it out of imports_test.go", name)
		}
	}
}

// TestDependencies: the table lists every imported third-party module and every direct
// requirement of go.mod, and go.mod requires every module in the table.
func TestDependencies(t *testing.T) {
	text, err := os.ReadFile(dependencies)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllSubmatch(text, -1) {
		listed[string(row[1])] = true
	}
	direct, required := requirements(t)
	for module := range listed {
		if !required[module] {
			t.Errorf("%s lists %s, which go.mod does not require", dependencies, module)
		}
	}
	for module := range direct {
		if !listed[module] {
			t.Errorf("go.mod requires %s: say in %s why", module, dependencies)
		}
	}
	for _, s := range sources(t) {
		s.imports(func(imp string) {
			if domain, _, _ := strings.Cut(imp, "/"); strings.Contains(domain, ".") && !within(listed, imp) {
				t.Errorf("%s imports %s: say in %s why", s.name, imp, dependencies)
			}
		})
	}
}

// within reports whether one of the modules has the package.
func within(modules map[string]bool, pkg string) bool {
	for p := pkg; p != "."; p = path.Dir(p) {
		if modules[p] {
			return true
		}
	}
	return false
}

// requirements returns all modules that go.mod requires, and as direct those that are
// not marked as indirect.
func requirements(t *testing.T) (direct, all map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct, all = map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require |\t)(\S+) v\S+(.*)$`).FindAllSubmatch(text, -1) {
		module := string(m[1])
		all[module] = true
		if !strings.Contains(string(m[2]), "// indirect") {
			direct[module] = true
		}
	}
	if len(all) == 0 {
		t.Fatal("go.mod: no requirements found")
	}
	return direct, all
}

// TestRival: gokvm is only for benchmarks and checks; nothing that a user runs may
// contain it.
func TestRival(t *testing.T) {
	for _, s := range sources(t) {
		s.imports(func(imp string) {
			if strings.HasPrefix(imp, "github.com/bobuhiro11/gokvm") && !s.test() && !match("test/**", s.pkg()) {
				t.Errorf("%s imports %s: tests only", s.name, imp)
			}
		})
	}
}

// TestMatch checks the patterns above.
func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, pkg string
		want         bool
	}{
		{"bus", "bus", true},
		{"bus", "bus/x", false},
		{"bus", "busy", false},
		{"devices/virtio/*", "devices/virtio/rng", true},
		{"devices/virtio/*", "devices/virtio", false},
		{"devices/virtio/*", "devices/virtio/rng/x", false},
		{"guest/**", "guest/kernel", true},
		{"guest/**", "guest/a/b", true},
		{"guest/**", "guests", false},
		{"**", "machine", true},
	} {
		if got := match(test.pattern, test.pkg); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.pattern, test.pkg, got)
		}
	}
}
