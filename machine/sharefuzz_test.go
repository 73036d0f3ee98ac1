package machine

import (
	"os"
	"path/filepath"
	"testing"

	"vmm/hostdir"
)

// hostSecret lies beside the shared directory and must not change.
const hostSecret = "of the host"

// sharedTree makes a directory with a file, a link out of it, and a subdirectory, which
// has a file and a link back up. A secret lies beside the directory.
func sharedTree(tb testing.TB) (host string) {
	tb.Helper()
	top := tb.TempDir()
	host = filepath.Join(top, "share")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(host, "dir"), 0o755),
		os.WriteFile(filepath.Join(top, "secret"), []byte(hostSecret), 0o600),
		os.WriteFile(filepath.Join(host, "file"), []byte("text"), 0o644),
		os.WriteFile(filepath.Join(host, "dir", "file"), []byte("text"), 0o644),
		os.Symlink("../secret", filepath.Join(host, "link")),
		os.Symlink("..", filepath.Join(host, "dir", "up")),
	} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return host
}

// FuzzShare lets the fuzzer act as a guest. It sends one request after another, each
// with an opcode, a node, a body and room for the answer. Nodes and handles are low
// numbers, so it finds the existing ones. Nothing may panic or write beside the
// directory, and every request must be answered.
func FuzzShare(f *testing.F) {
	name := func(s string) []byte { return append([]byte(s), 0) }
	add := func(requests ...[]byte) {
		var all []byte
		for _, r := range requests {
			all = append(all, r...)
		}
		f.Add(all)
	}
	add(fuzzRequest(fuseLookup, 1, name("file"), 200), fuzzRequest(fuseOpen, 2, u64(2), 200), fuzzRequest(fuseRead, 2, append(u64(3, 0, 100), make([]byte, 16)...), 200))
	add(fuzzRequest(fuseLookup, 1, name("link"), 200), fuzzRequest(5, 2, nil, 200), fuzzRequest(fuseOpen, 2, u64(0), 200))
	add(fuzzRequest(27, 1, u64(0), 200), fuzzRequest(44, 1, append(u64(2, 0, 200), make([]byte, 16)...), 220), fuzzRequest(28, 1, append(u64(2, 0, 200), make([]byte, 16)...), 220))
	add(fuzzRequest(35, 1, append(u64(2, 0), name("new")...), 200), fuzzRequest(16, 2, append(u64(3, 0, 4), append(make([]byte, 16), "text"...)...), 200))
	add(fuzzRequest(45, 1, append(u64(1, 0), "file\x00new\x00"...), 200), fuzzRequest(6, 1, []byte("a\x00../secret\x00"), 200), fuzzRequest(2, 2, u64(1), 0))
	add(fuzzRequest(26, 0, append([]byte{7, 0, 0, 0, 38, 0, 0, 0}, make([]byte, 56)...), 200), fuzzRequest(38, 0, nil, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		host := sharedTree(t)
		g := newShareGuest(t, host, hostdir.Options{Files: 50})
		for i := 0; i < 20 && len(b) >= 5; i++ {
			n := min(int(b[2]), len(b)-5)
			opcode, node, room, body := uint32(b[0]), uint64(b[1]), int(b[3])|int(b[4])<<8, b[5:5+n]
			b = b[5+n:]
			g.chain(g.request(opcode, node, body), room)
			if n := g.wait(); n > room || n > 0 && n < 16 {
				t.Errorf("opcode %d: an answer of %d bytes in %d", opcode, n, room)
			}
		}
		g.close()
		if g.dev.Panics() > 0 {
			t.Error("a request panicked")
		}
		names, err := os.ReadDir(filepath.Dir(host))
		secret, err2 := os.ReadFile(filepath.Join(host, "../secret"))
		if err != nil || err2 != nil || len(names) != 2 || string(secret) != hostSecret {
			t.Errorf("beside the share: %v, %q, %v, %v", names, secret, err, err2)
		}
	})
}

// fuzzRequest writes a request as FuzzShare reads it.
func fuzzRequest(opcode, node byte, body []byte, room int) []byte {
	return append([]byte{opcode, node, byte(len(body)), byte(room), byte(room >> 8)}, body...)
}
