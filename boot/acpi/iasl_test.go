package acpi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

// run runs a program of Debian's acpica-tools in dir and returns its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s: install acpica-tools", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// banner is the comment above a disassembly: dates and versions.
var banner = regexp.MustCompile(`(?s)^/\*.*?\*/\s*`)

// TestDisassembly: ACPICA, which Linux also uses, understands the tables without
// complaint. It made the readable source files in testdata. They are what a guest
// sees: compiled, they equal our tables.
func TestDisassembly(t *testing.T) {
	t.Parallel()
	_, tables := build(t, config(4))
	for _, name := range []string{"DSDT", "FACP", "APIC", "SPCR"} {
		t.Run(name, func(t *testing.T) {
			source := disassemble(t, tables[name])
			golden := filepath.Join("testdata", strings.ToLower(name)+".dsl")
			if *update {
				write(t, golden, source)
			}
			if got := compile(t, read(t, golden)); !bytes.Equal(got, anonymous(tables[name])) {
				t.Errorf("%s is not what a guest sees; go test -update rewrites it", golden)
			}
		})
	}
}

// TestLargeDisassembly: the same for very long packages.
func TestLargeDisassembly(t *testing.T) {
	t.Parallel()
	_, tables := build(t, config(300))
	for _, name := range []string{"DSDT", "APIC"} {
		if got := compile(t, disassemble(t, tables[name])); !bytes.Equal(got, anonymous(tables[name])) {
			t.Errorf("%s does not survive disassembly", name)
		}
	}
}

func disassemble(t *testing.T, table []byte) (source []byte) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "t.aml"), table)
	complaints(t, run(t, dir, "iasl", "-d", "t.aml"))
	return banner.ReplaceAll(read(t, filepath.Join(dir, "t.dsl")), nil)
}

// compile returns the table that source describes, as anonymous returns it.
func compile(t *testing.T, source []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "t.dsl"), source)
	// -on: leave paths as they are.
	complaints(t, run(t, dir, "iasl", "-on", "-p", "t", "t.dsl"))
	return anonymous(read(t, filepath.Join(dir, "t.aml")))
}

// complaints fails the test on any iasl message that is not purely informational.
func complaints(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		clean := strings.Contains(line, "0 Errors, 0 Warnings, 0 Remarks")
		if !clean && regexp.MustCompile(`(?i)error|warning|remark|invalid|could not`).MatchString(line) {
			t.Errorf("iasl: %s", strings.TrimSpace(line))
		}
	}
}

// anonymous returns a table without its checksum and the compiler's identity.
func anonymous(table []byte) []byte {
	b := bytes.Clone(table)
	b[9] = 0
	clear(b[28:36])
	return b
}

// TestEvents runs the event method in ACPICA's interpreter: for the button's
// interrupt, for another device's, and for one that belongs to no device.
func TestEvents(t *testing.T) {
	t.Parallel()
	c := config(1)
	c.Events = []Event{{10, []Term{Notify(`\_SB.V000`, 0x81)}}}
	_, tables := build(t, c)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "dsdt.aml"), tables["DSDT"])
	const run9, run10, run11 = `execute \_SB.GED._EVT 0x9;`, `execute \_SB.GED._EVT 0xa;`, `execute \_SB.GED._EVT 0xb`
	out := run(t, dir, "acpiexec", "-r", "-b", run9+run10+run11, "dsdt.aml")
	var got []string
	for _, m := range regexp.MustCompile(`Device Notify on \[(....)\] \S+ Value (\S+)`).FindAllStringSubmatch(out, -1) {
		got = append(got, m[1]+" "+m[2])
	}
	if want := []string{"PWRB 0x80", "V000 0x81"}; !slices.Equal(got, want) {
		t.Errorf("notified %q, want %q, in\n%s", got, want, out)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o666); err != nil {
		t.Fatal(err)
	}
}
