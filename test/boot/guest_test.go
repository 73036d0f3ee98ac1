// Package boot boots real kernels in the vmm binary and drives their consoles as a
// person would. It needs hardware virtualization, bin/vmm and the output of
// 'make guest kernels'. Without hardware virtualization 'make test' runs it in the lab.
package boot

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"vmm/machine"
	"vmm/test/allow"
)

// patience is the deadline of every wait; a boot in the lab takes 6 s.
var patience = allow.Time(60 * time.Second)

var (
	root  = findRoot()
	vmm   = filepath.Join(root, "bin", "vmm")
	cache = filepath.Join(root, ".cache")
)

// findRoot returns the directory that contains go.mod.
func findRoot() string {
	dir, _ := os.Getwd()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	return "."
}

func TestMain(m *testing.M) {
	// The cache of unpacked kernels must not be the user's. It persists, as the tests
	// run one by one: a lab that unpacks and boots at once stalls more often.
	os.Setenv("XDG_CACHE_HOME", filepath.Join(os.TempDir(), "vmm-boot-test"))
	os.Exit(m.Run())
}

// kernel names a kernel that 'make kernels' fetches.
type kernel string

const (
	cloud   kernel = "cloud"
	generic kernel = "generic"
	cpu     kernel = "cpu" // from u-root/cpu: no kvmclock, no modules
)

func (k kernel) image() string  { return filepath.Join(cache, "kernels", string(k), "vmlinuz") }
func (k kernel) initrd() string { return filepath.Join(cache, "guest", "initrd-"+string(k)+".cpio") }

// args returns the arguments that boot k. There is no network unless more has one, as
// it slows down the guest's boot.
func (k kernel) args(more ...string) []string {
	args := []string{"run", "--kernel", k.image(), "--initrd", k.initrd()}
	if !slices.Contains(more, "--net") {
		args = append(args, "--net", "none")
	}
	return append(args, more...)
}

// tool returns an initrd with the test program that the guest runs.
func tool(t *testing.T) string {
	program, err := os.ReadFile(filepath.Join(root, "bin", "guesttool"))
	if err != nil {
		t.Skipf("%v; 'make boots' makes it", err)
	}
	path := filepath.Join(t.TempDir(), "tool.cpio")
	if err := os.WriteFile(path, newc("tool", string(program)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// need lets t run in parallel, and skips it where no guest can run.
func need(t *testing.T, kernels ...kernel) {
	t.Parallel()
	if flag, err := machine.HardwareFlag(machine.CPUInfo); err != nil || flag == "" {
		t.Skip("this host has neither vmx nor svm; 'make test' runs this in the lab")
	}
	files := []string{vmm}
	for _, k := range kernels {
		files = append(files, k.image(), k.initrd())
	}
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("%v; 'make build guest kernels' makes it", err)
		}
	}
}

// guest is a running vmm and the known state of its console.
type guest struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	tty    *os.File      // input and output of a guest on a terminal
	exited chan struct{} // closed once vmm has ended
	err    error         // of vmm's Wait; set before exited is closed
	died   bool          // set like err; a machine in this process ended unasked by its guest
	kill   func()        // ends it at once

	mu     sync.Mutex
	output bytes.Buffer // guarded by mu; everything that vmm wrote
	seen   int          // guarded by mu; expect continues from here
	news   chan struct{}
}

// failure is what ends an attempt.
type failure struct {
	// stalled: a deadline passed or the guest died by itself. The lab's emulated
	// processor causes this about once in some dozens of boots.
	stalled bool
	text    string
}

func fail(stalled bool, format string, args ...any) {
	panic(failure{stalled, fmt.Sprintf(format, args...)})
}

// inLab says that the processor is emulated.
var inLab = os.Getenv("VMM_LAB") != ""

// soak says that there is time for all cases.
var soak = os.Getenv("VMM_SOAK") != ""

// attempt runs f with a guest. If the guest stalled in the lab, it says so and runs f
// once more. Wrong guest output always fails the test.
func attempt(t *testing.T, start func() *guest, f func(g *guest)) {
	t.Helper()
	first := try(start, f)
	if first == nil {
		return
	}
	if !first.stalled || !inLab {
		t.Fatal(first.text)
	}
	fmt.Printf("RETRY %s: %s\n", t.Name(), first.text)
	if second := try(start, f); second != nil {
		t.Fatalf("twice: %s", second.text)
	}
}

func try(start func() *guest, f func(g *guest)) (failed *failure) {
	g := start()
	defer func() {
		g.kill()
		<-g.exited
		if r := recover(); r != nil {
			text, ok := r.(failure)
			if !ok {
				panic(r)
			}
			text.text += "\n--- console:\n" + g.tail(4000)
			failed = &text
		}
	}()
	f(g)
	return nil
}

// onPipes starts vmm with pipes for standard input and output.
func onPipes(args ...string) *guest { return piped(exec.Command(vmm, unhurried(args)...)) }

// inNamespace is onPipes in a network namespace.
func inNamespace(name string, args ...string) *guest {
	return piped(exec.Command("ip", append([]string{"netns", "exec", name, vmm}, unhurried(args)...)...))
}

func piped(cmd *exec.Cmd) *guest {
	g := &guest{cmd: cmd, exited: make(chan struct{}), news: make(chan struct{}, 1)}
	g.input, _ = g.cmd.StdinPipe()
	g.cmd.Stdout, g.cmd.Stderr = g, g
	g.start()
	return g
}

// unhurried gives a guest ample time to power off if a test does not set a limit. On a
// slow host it needs more than vmm's half minute, and the test's own patience limits
// the wait.
func unhurried(args []string) []string {
	if args[0] != "run" || slices.Contains(args, "--stop-timeout") {
		return args
	}
	return append(slices.Clone(args), "--stop-timeout", "30m")
}

// onTerminal starts vmm on its own terminal.
func onTerminal(args ...string) *guest {
	g := &guest{cmd: exec.Command(vmm, unhurried(args)...), exited: make(chan struct{}), news: make(chan struct{}, 1)}
	terminal, err := pty.Start(g.cmd)
	if err != nil {
		panic(err)
	}
	g.tty, g.input = terminal, terminal
	g.kill = func() { g.cmd.Process.Kill() }
	go io.Copy(g, terminal)
	go g.wait()
	return g
}

func (g *guest) start() {
	if err := g.cmd.Start(); err != nil {
		panic(err)
	}
	g.kill = func() { g.cmd.Process.Kill() }
	go g.wait()
}

func (g *guest) wait() {
	g.err = g.cmd.Wait()
	close(g.exited)
}

// Write receives vmm's output.
func (g *guest) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.output.Write(p)
	select {
	case g.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (g *guest) tail(n int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.output.Bytes()
	return string(b[max(0, len(b)-n):])
}

// expect waits until the console shows text, after the text that was last expected.
func (g *guest) expect(text string) { g.expectWithin(text, patience) }

// expectWithin is expect with its own deadline.
func (g *guest) expectWithin(text string, limit time.Duration) {
	deadline := time.After(limit)
	for {
		g.mu.Lock()
		i := bytes.Index(g.output.Bytes()[g.seen:], []byte(text))
		if i >= 0 {
			g.seen += i + len(text)
		}
		g.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-g.news:
		case <-g.exited:
			if g.shows(text) {
				continue // the text came with the end
			}
			fail(g.crashed(), "vmm ended (%v) and the console never showed %q", g.err, text)
		case <-deadline:
			fail(true, "after %v the console does not show %q", limit, text)
		}
	}
}

// shows reports whether the console shows text, after the text that was last expected.
func (g *guest) shows(text string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bytes.Contains(g.output.Bytes()[g.seen:], []byte(text))
}

const prompt = "$ "

func (g *guest) prompt() { g.expect(prompt) }

// send types text.
func (g *guest) send(text string) {
	if _, err := io.WriteString(g.input, text); err != nil {
		fail(false, "typing %q: %v", text, err)
	}
}

// do types a command at the prompt and waits for text in its output.
func (g *guest) do(command, text string) {
	g.send(command + "\n")
	g.expect(command)
	g.expect(text)
	g.prompt()
}

// status waits for the end of vmm and checks that its exit status is one of want.
func (g *guest) status(want ...int) {
	select {
	case <-g.exited:
		if got := g.cmd.ProcessState.ExitCode(); !slices.Contains(want, got) {
			fail(g.crashed(), "exit status %d, want %v", got, want)
		}
	case <-time.After(patience):
		fail(true, "vmm has not ended after %v", patience)
	}
}

// crashed reports whether the guest ended as if its processor had misbehaved.
func (g *guest) crashed() bool {
	status := g.cmd.ProcessState.ExitCode()
	return g.died || status == 10 || status == 11 || status == 13
}

func (g *guest) signal(s syscall.Signal) {
	if err := g.cmd.Process.Signal(s); err != nil {
		fail(false, "signal %v: %v", s, err)
	}
}

// execution returns the kernel parameters that make the guest run a command and end
// with its status. vmm's exit status is that plus 64.
func execution(command string) string {
	return fmt.Sprintf(`vmm.exit=0x501 vmm.exec="%s"`, strings.ReplaceAll(command, `"`, ""))
}
