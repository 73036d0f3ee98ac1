package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vmm/machine"
	"vmm/roster"
	"vmm/test/allow"
)

// TestMain makes this binary into commands for the scripts: the program itself, and
// commands that test it in a terminal.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vmm":      vmm,
		"terminal": terminalMain,
		"talk":     talkMain,
		"crash":    crashMain,
		"job":      jobMain,
		"jobshell": jobShellMain,
	})
}

// vmm is main on a host that $KVM and $CPUINFO may replace.
func vmm() {
	inherit()
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr,
		kvm: cmp.Or(os.Getenv("KVM"), machine.KVMDevice), cpuinfo: cmp.Or(os.Getenv("CPUINFO"), machine.CPUInfo)}
	os.Exit(p.execute(os.Args[1:]))
}

// TestScript runs testdata/script/*.txt. Besides testscript's own commands and conditions,
// a script has
//
//	ends N COMMAND ...   run it; its exit status must be N
//	says LINE            the last command printed only this line to stderr
//	prints TEXT          the last command printed only this text to stdout;
//	                     "\n" in it ends a line
//	cut FILE N NEW       make NEW of the first N bytes of FILE
//	patch FILE N HH NEW  make NEW of FILE with the byte HH at offset N
//	[kvm]                guests can be run here
//	[interpreted]        and their code is interpreted
//	[root]               the test may open everything
//
// It also has $LIMIT, in seconds, for commands that could hang and keep the script from
// ending. Its directory has the kernels of kernels_test.go, a cpuinfo of a processor that
// virtualizes, which $CPUINFO names, and one of a processor that does not.
func TestScript(t *testing.T) {
	sys, noKVM := machine.OpenKVM(machine.KVMDevice)
	if noKVM == nil {
		sys.Close()
	} else {
		t.Log("scripts that run guests are skipped:", noKVM)
	}
	params := testscript.Params{
		RequireUniqueNames: true,
		Setup:              setUp,
		Condition: func(condition string) (bool, error) {
			switch condition {
			case "kvm":
				return noKVM == nil, nil
			case "interpreted":
				flag, err := machine.HardwareFlag(machine.CPUInfo)
				return err == nil && flag == "", nil
			case "root":
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("no such condition: %s", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ends": ends, "says": says, "prints": prints, "cut": cut, "patch": patch,
		},
	}
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScript(t, file, params)
		})
	}
}

// scriptLimit is the deadline of a script: the slowest takes half a minute in the lab.
var scriptLimit = allow.Time(100 * time.Second)

// runScript runs one script and, in the lab, once more if it fails, which it reports:
// the emulated processor there kills guests now and then (docs/lab.md).
func runScript(t *testing.T, file string, p testscript.Params) {
	for again := os.Getenv("VMM_LAB") != ""; ; again = false {
		p.Files, p.Deadline = []string{file}, time.Now().Add(scriptLimit)
		try := &scriptTry{T: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			testscript.RunT(try, p)
		}()
		<-done
		switch {
		case try.skipped != "":
			t.Skip(try.skipped)
		case !try.failed:
			return
		case !again:
			t.Fatal(try.log.String())
		}
		fmt.Printf("RETRY %s:\n%s\n", t.Name(), &try.log)
	}
}

// scriptTry is one run of a script, whose result is kept from the test at first.
type scriptTry struct {
	*testing.T
	failed  bool
	skipped string
	log     strings.Builder
}

func (s *scriptTry) Run(_ string, f func(testscript.T)) {
	done := make(chan struct{})
	go func() { // FailNow ends it
		defer close(done)
		f(s)
	}()
	<-done
}

func (s *scriptTry) Parallel()         {}
func (s *scriptTry) Verbose() bool     { return testing.Verbose() }
func (s *scriptTry) Log(args ...any)   { fmt.Fprintln(&s.log, args...) }
func (s *scriptTry) Skip(args ...any)  { s.skipped = fmt.Sprintln(args...); runtime.Goexit() }
func (s *scriptTry) FailNow()          { s.failed = true; runtime.Goexit() }
func (s *scriptTry) Fatal(args ...any) { s.Log(args...); s.FailNow() }

func setUp(e *testscript.Env) error {
	e.Setenv("HOME", e.WorkDir) // for the cache of kernels
	e.Setenv(allow.Variable, os.Getenv(allow.Variable))
	e.Setenv("LIMIT", fmt.Sprint(int((scriptLimit * 9 / 10).Seconds())))
	e.Setenv("GORACE", "atexit_sleep_ms=0") // otherwise each command takes a second more
	guests := filepath.Join(e.WorkDir, "guests")
	e.Setenv("VMM_RUNTIME_DIR", guests)
	e.Defer(func() { endGuests(guests) })
	e.Setenv("CPUINFO", filepath.Join(e.WorkDir, "cpuinfo"))
	files := map[string][]byte{
		"cpuinfo":       []byte("processor\t: 0\nflags\t\t: fpu vme svm\n"),
		"cpuinfo-plain": []byte("processor\t: 0\nflags\t\t: fpu vme\n"),
	}
	for name, code := range kernels() {
		files[name] = code
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(e.WorkDir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// endGuests ends the guests that a failed script left in the background: they would run
// for ever.
func endGuests(dir string) {
	r, err := roster.Open(dir)
	if err != nil {
		return
	}
	defer r.Close()
	all, _ := r.List()
	for _, e := range all {
		if e.Alive {
			roster.Kill(e)
		}
	}
}

func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func ends(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "ends N COMMAND ...")
	err := ts.Exec(args[1], args[2:]...)
	status := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, not %s; stderr:\n%s", status, args[0], ts.ReadFile("stderr"))
	}
}

func says(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "says LINE")
	if got := ts.ReadFile("stderr"); got != args[0]+"\n" {
		ts.Fatalf("it says:\n%snot:\n%s\n", got, args[0])
	}
}

func prints(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "prints TEXT")
	if got, want := ts.ReadFile("stdout"), strings.ReplaceAll(args[0], `\n`, "\n"); got != want {
		ts.Fatalf("it prints %q, not %q; stderr:\n%s", got, want, ts.ReadFile("stderr"))
	}
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 3, "cut FILE N NEW")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := []byte(ts.ReadFile(args[0]))
	need(ts, n < len(b), fmt.Sprintf("cut: %s has %d bytes only", args[0], len(b)))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b[:n], 0o644))
}

func patch(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 4, "patch FILE N HH NEW")
	off, err := strconv.ParseUint(args[1], 0, 31)
	ts.Check(err)
	v, err := strconv.ParseUint(args[2], 16, 8)
	ts.Check(err)
	b := []byte(ts.ReadFile(args[0]))
	b[off] = byte(v)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), b, 0o644))
}
