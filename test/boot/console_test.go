package boot

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmm/test/boot/pattern"
)

// TestConsoleVirtioPipe is a script: input sent before the console exists waits for
// it.
func TestConsoleVirtioPipe(t *testing.T) {
	need(t, cloud)
	for _, transport := range []string{"pci", "mmio"} {
		t.Run(transport, func(t *testing.T) {
			attempt(t, func() *guest {
				return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--console", "virtio", "--transport", transport)...)
			}, func(g *guest) {
				g.send("echo typed''ahead\npoweroff\n")
				g.expect("typedahead")
				g.status(0)
			})
		})
	}
}

// TestConsolePrint makes the guest print much at once on hvc0, to a slower reader.
func TestConsolePrint(t *testing.T) {
	need(t, cloud)
	const n = 64 << 10
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--console", "virtio", "-a", execution(fmt.Sprintf("/tool print %d", n)), "--initrd", tool(t))...)
	}, func(g *guest) {
		g.expect("DATA-BEGIN\r\n")
		g.expectWithin("DATA-END", slow())
		g.status(64)
		_, out, _ := strings.Cut(g.tail(1<<20), "DATA-BEGIN\r\n")
		out, _, _ = strings.Cut(out, "DATA-END")
		if want := pattern.Bytes(n); out != string(want) {
			fail(false, "%d bytes came, not the %d that were printed", len(out), len(want))
		}
	})
}

// TestConsolePort: a guest program and a host program share a named stream, in both
// directions, and each notices when the other is present.
func TestConsolePort(t *testing.T) {
	need(t, cloud)
	path, file := filepath.Join(t.TempDir(), "s"), filepath.Join(t.TempDir(), "f")
	const n = 256 << 10
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--initrd", tool(t),
			"--console-port", "org.test.0=unix:"+path, "--console-port", "log=file:"+file)...)
	}, func(g *guest) {
		g.prompt()
		g.do("ls /dev/virtio-ports", "org.test.0")
		g.do("echo to a file > /dev/virtio-ports/log", "")
		g.send(fmt.Sprintf("/tool port /dev/virtio-ports/org.test.0 %d\n", n))
		for range 2 { // the second connects after the first has left, and its echo is complete
			conn, err := net.Dial("unix", path)
			if err != nil {
				fail(false, "%v", err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			half := pattern.Bytes(n / 2)
			go conn.Write(half)
			got := make([]byte, len(half))
			if k, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, half) {
				fail(true, "%d bytes came back of %d: %v", k, len(half), err)
			}
			conn.Close()
		}
		g.expect("PORT-DONE")
		g.prompt()
		g.send("poweroff\n")
		g.status(0)
		if b, err := os.ReadFile(file); string(b) != "to a file\n" {
			fail(false, "the file has %q, %v", b, err)
		}
	})
}
