package hostdir

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRetry: calls that can be interrupted are made through again or got.
func TestRetry(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	// Calls that do not wait, and those that concern no file.
	fine := regexp.MustCompile(`unix\.(Close|Timespec|SYS_\w+|Major|Minor|Mkdev|Getrlimit|ByteSliceToString)\b`)
	call := regexp.MustCompile(`unix\.[A-Z][a-z]\w*\(`)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		looping := 0 // lines left in a function that retries
		for i, line := range strings.Split(string(text), "\n") {
			if looping--; strings.Contains(line, "again(func") || strings.Contains(line, "got(func") {
				looping = 2
			}
			c := call.FindString(line)
			if c != "" && !fine.MatchString(c) && looping <= 0 && !strings.Contains(line, "// again") {
				t.Errorf("%s:%d: %s is not made again after EINTR", name, i+1, c)
			}
		}
	}
	tries := 0
	interrupted := func() error {
		if tries++; tries < 3 {
			return unix.EINTR
		}
		return unix.EIO
	}
	if err := again(interrupted); err != unix.EIO || tries != 3 {
		t.Errorf("%v after %d calls", err, tries)
	}
	tries = 0
	if n, err := got(func() (int, error) { return 5, interrupted() }); n != -1 || err != unix.EIO || tries != 3 {
		t.Errorf("%d, %v after %d calls", n, err, tries)
	}
}
