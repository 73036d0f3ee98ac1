package boot

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"vmm/client"
	"vmm/roster"
)

// mirrors echoes what arrives on each connection to a listener.
func mirrors(t *testing.T, l net.Listener, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			}()
		}
	}()
}

// TestPauseWork: a guest that uses all its devices is paused and resumed a thousand
// times. It only notices that time passes: nothing is lost, duplicated or changed.
func TestPauseWork(t *testing.T) {
	need(t, cloud)
	times := 1000
	if soak {
		times = 10000
	}
	dir, socket := t.TempDir(), vsockPath(t)
	disk, share := filepath.Join(dir, "disk"), filepath.Join(dir, "share")
	if err := os.Mkdir(share, 0o700); err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	mirrors(t, tcp, err)
	unix, err := net.Listen("unix", socket+"_77")
	mirrors(t, unix, err)
	command := fmt.Sprintf("/tool work -disk /dev/vda -share /mnt -tcp 10.0.2.2:%d -vsock 77 -until /mnt/enough", tcp.Addr().(*net.TCPAddr).Port)
	guests := filepath.Join(filepath.Dir(socket), "r")
	attempt(t, func() *guest {
		os.Remove(filepath.Join(share, "enough"))
		if err := os.WriteFile(disk, make([]byte, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		return onPipes(cloud.args("-m", "512M", "-c", "2", "-a", "quiet", "--initrd", tool(t), "--disk", disk, "-v", share+":/mnt",
			"--net", "user,host-loopback", "--vsock", socket, "--name", "worker", "--runtime-dir", guests)...)
	}, func(g *guest) {
		g.online()
		g.send(command + "\n")
		g.expect("WORK-LINE 20\r\n")
		took := pauses(g, guests, times)
		fmt.Printf("%d pauses under load, to the answer of the API: median %v, longest %v\n", times, took[len(took)/2], took[len(took)-1])
		if err := os.WriteFile(filepath.Join(share, "enough"), nil, 0o600); err != nil {
			fail(false, "%v", err)
		}
		g.expect("WORK-DONE")
		checkWork(g.tail(8 << 20))
		g.send("poweroff\n")
		g.status(0)
	})
}

// pauses pauses and resumes the guest the given number of times. It returns how long
// each pause call took, sorted.
func pauses(g *guest, dir string, times int) (took []time.Duration) {
	r, err := roster.Open(dir)
	if err != nil {
		fail(false, "%v", err)
	}
	worker, err := client.Open(r, "worker")
	if err != nil {
		fail(false, "%v", err)
	}
	defer worker.Close()
	call := func(what string, i int, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f(ctx); err != nil {
			fail(g.crashed(), "%s %d: %v", what, i, err)
		}
	}
	for i := range times {
		began := time.Now()
		call("pause", i, worker.Pause)
		took = append(took, time.Since(began))
		if i%100 == 0 {
			time.Sleep(100 * time.Millisecond) // a long pause
		}
		call("resume", i, worker.Resume)
		time.Sleep(time.Duration(i%10) * time.Millisecond)
	}
	slices.Sort(took)
	return took
}

// checkWork checks that every line is there, once and in order, and that every device
// had work.
func checkWork(out string) {
	next := 0
	for _, m := range regexp.MustCompile(`WORK-LINE (\d+)\r?\n`).FindAllStringSubmatch(out, -1) {
		if n, _ := strconv.Atoi(m[1]); n != next {
			fail(false, "line %d follows line %d", n, next-1)
		}
		next++
	}
	for _, device := range []string{"disk", "share", "tcp", "vsock", "rng", "lines", "clock"} {
		m := regexp.MustCompile(`WORK-COUNT ` + device + ` (\d+)`).FindStringSubmatch(out)
		if m == nil {
			fail(false, "no work was done with %s", device)
		}
		if n, _ := strconv.Atoi(m[1]); n < 5 || device == "lines" && n != next {
			fail(false, "%s: %d times, and %d lines came", device, n, next)
		}
		fmt.Println(m[0])
	}
}
