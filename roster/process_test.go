package roster

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

// TestKill: a guest's process is killed even if stopped, and no other process is.
func TestKill(t *testing.T) {
	if dir := os.Getenv("VMM_TEST_KILL"); dir != "" {
		r, err := Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Claim("web", true)
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("CLAIMED\n")
		io.Copy(io.Discard, os.Stdin)
		c.Release()
		return
	}
	r := open(t)
	ours := claim(t, r, "ours", true)
	if err := Kill(ours.Entry); !errors.Is(err, errGone) { // it would be this process
		t.Errorf("of this process: %v", err)
	}
	child := another(t, r, "TestKill", "VMM_TEST_KILL")
	if err := child.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	e, err := r.Find("web")
	if err != nil || !e.Alive {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := Kill(e); err != nil {
		t.Error(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Error(err)
		}
	case <-time.After(allow.Time(20 * time.Second)):
		t.Fatal("it lives")
	}
	if Alive(e) {
		t.Error("its name is held")
	}
	if err := Kill(e); !errors.Is(err, errGone) {
		t.Errorf("again: %v", err)
	}
	if err := r.Remove("web"); err != nil {
		t.Error(err)
	}
	next := claim(t, r, "web", true)
	if Alive(e) || !Alive(next.Entry) {
		t.Error("another guest of the name is taken for the one that has gone")
	}
	if err := Kill(e); err == nil {
		t.Error("and killed for it")
	}
}
