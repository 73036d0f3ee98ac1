package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"16M": 16 << 20, "1G": 1 << 30, "512k": 512 << 10, "2T": 2 << 40, "0M": 0, "0": 0, "00": 0, " 0 ": 0, "0B": 0,
		"1GiB": 1 << 30, "1gb": 1 << 30, " 1G ": 1 << 30, "16777215T": 16777215 << 40,
	} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: %d, %v; want %d", text, s, err, want)
			continue
		}
		var again size
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q is shown as %q, which is %d, %v", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "M", "B", "-0", "+0", "0.0", "0x0", "iB", "1", "1024", "-1G", "+1G", "1.5G", "1 G", "G1", "0x1M", "16777216T", "99999999999999999999K", "1P", "١M"} {
		s := size(1)
		if err := s.Set(text); err == nil || s != 1 {
			t.Errorf("%q: %d, %v", text, s, err)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"run", "run", 0}, {"rum", "run", 1},
		{"kernal", "kernel", 1}, {"kernl", "kernel", 1}, {"krenel", "kernel", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
		if got := distance(test.b, test.a); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.b, test.a, got, test.want)
		}
	}
}

func TestNearest(t *testing.T) {
	flags := newTest(t).run(t).Flags()
	for name, want := range map[string]string{
		"kernal": "kernel", "cpu": "cpus", "mem": "memory", "memroy": "memory", "cmd": "cmdline", "on-rebot": "on-reboot",
		"x": "", "": "", "frobnicate": "", strings.Repeat("kernel", 1000): "",
	} {
		if got := nearestFlag(flags, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain, 'é' \"日本\"": "plain, 'é' \"日本\"", "a\nb\r\tc": `a\nb\r\tc`, "\x1b[2J\x7f": `\x1b[2J\x7f`, "\xff": "\uFFFD", "\u202e": `\u202e`,
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// testProgram is a program on a host without KVM.
type testProgram struct {
	program
	stdout, stderr bytes.Buffer
}

func newTest(t testing.TB) *testProgram {
	p := new(testProgram)
	absent := filepath.Join(t.TempDir(), "absent")
	p.program = program{in: strings.NewReader(""), out: &p.stdout, err: &p.stderr, kvm: absent, cpuinfo: absent}
	return p
}

// run returns the run command.
func (p *testProgram) run(t testing.TB) *cobra.Command {
	return runOf(t, p.newRoot())
}

func runOf(t testing.TB, root *cobra.Command) *cobra.Command {
	cmd, _, err := root.Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// FuzzArgs: any arguments give a status. An error is one line, or one for each guest name.
// No guest runs: files would be opened and truncated.
func FuzzArgs(f *testing.F) {
	for _, args := range []string{
		"", "run", "rum", "help", "help run", "help exit-status", "help rum", "help run x", "version", "version x", "doctor",
		"rm k", "rm a/b k", "inspect k", "stop -t 1s k k", "kill", "wait \xff a",
		"completion", "completion bash", "completion x", "exit-status", "exit-status x", "--", "-- run", "-h", "--help=x", "--version",
		"run --kernel k", "run -k k -m 1G -c 2 --initrd a --initrd b -a x -a y --cmdline z", "run -k k --memory 512", "run -k k -m",
		"run --", "run -- x", "run -", "run --=", "run ---", "run -kk -c-1", "run -k k -i a", "run -k k -ia", "run -k k -i=a", "run -k k -itd", "run -k k --boot efi", "run -k k --on-reboot x",
		"run -k k --log-level x", "run -k k --log-level WARN+3", "run -k k --stop-timeout 1", "run -k k --serial usb", "run --kernal k",
		"run -z", "run -kz -zk", "run --a\n\x1b[2J", "\xff\xfe", "completion bash --no-descriptions=x", "completion zsh x", "run -m 99999999999999999999T",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, " ")
		if strings.HasPrefix(args[0], "__") {
			t.Skip("for shells")
		}
		p := newTest(t)
		root := p.newRoot()
		ran := false
		runOf(t, root).RunE = func(*cobra.Command, []string) error { ran = true; return nil }
		status := p.executeRoot(root, args)
		said := p.stderr.String()
		lines := strings.Count(said, "\n")
		well := lines > 0 && lines < max(2, len(args)) && strings.HasSuffix(said, "\n")
		for line := range strings.Lines(said) {
			line = strings.TrimSuffix(line, "\n")
			well = well && strings.HasPrefix(line, "vmm: ") && oneLine(line) == line
		}
		switch {
		case status == exitPowerOff && (ran || p.stdout.Len() > 0) && said == "":
		case status == exitHost && strings.HasSuffix(p.stdout.String(), "This host cannot run guests.\n"):
		case status == exitUsage && well && p.stdout.Len() == 0 && !ran:
		case status == exitNotFound && well && !ran:
		default:
			t.Errorf("%q: status %d, ran %v, stderr %q, stdout:\n%s", args, status, ran, said, &p.stdout)
		}
	})
}

func TestTailFlag(t *testing.T) {
	for s, want := range map[string]string{"0": "0", "12": "12", "all": "all", "-1": "", "": "", "x": "", "99999999999": ""} {
		var n tail
		err := n.Set(s)
		if (err == nil) != (want != "") || err == nil && n.String() != want {
			t.Errorf("--tail %q: %v, %v", s, n.String(), err)
		}
	}
}
