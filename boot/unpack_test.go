package boot

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

var update = flag.Bool("update", false, "pack the tiny kernel into testdata, with the tools that Linux's build uses")

// tools are the commands that pack like scripts/Makefile.lib and scripts/xz_wrap.sh.
var tools = map[string]string{
	"gzip":  "gzip -n -9",
	"lz4":   "lz4 -l -9 - -",
	"xz":    "xz --check=crc32 --x86 --lzma2=dict=32MiB",
	"zstd":  "zstd -22 --ultra",
	"bzip2": "bzip2 -9",
	"lzma":  "lzma -9",
	"lzo":   "lzop -9",
}

func TestUpdate(t *testing.T) {
	if !*update {
		t.Skip("writes testdata only with -update")
	}
	for name, line := range tools {
		args := strings.Fields(line)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = bytes.NewReader(tinyELF())
		out, err := cmd.Output()
		if err == nil {
			err = os.WriteFile(filepath.Join("testdata", "kernel."+name), out, 0o644)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join("testdata", "vmlinuz"), bzImage(packed(t, "xz")), 0o644); err != nil {
		t.Error(err)
	}
}

func TestUnpack(t *testing.T) {
	want := tinyELF()
	for name := range tools {
		t.Run(name, func(t *testing.T) {
			got, err := unpack(packed(t, name), 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer got.free()
			if !bytes.Equal(got, want) {
				t.Error("unpacked to something else")
			}
		})
	}
}

// TestUnpackDamaged damages every payload in every way that must be detected.
func TestUnpackDamaged(t *testing.T) {
	size := uint32(len(tinyELF()))
	restate := func(b []byte, n uint32) []byte { return append(b[:len(b)-4:len(b)-4], le32(n)...) }
	for name := range tools {
		good := packed(t, name)
		for how, bad := range map[string][]byte{
			"one more stated":   restate(good, size+1),
			"one fewer stated":  restate(good, size-1),
			"nothing stated":    restate(good, 0),
			"a bomb stated":     restate(good, 0xffffffff),
			"half of it":        append(good[:len(good)/2:len(good)/2], le32(size)...),
			"only the magic":    append(good[:8:8], le32(size)...),
			"another in middle": flip(good, len(good)/2),
		} {
			if got, err := unpack(bad, 4<<20); err == nil {
				got.free()
				// lz4's legacy frame has no checksum, so a changed byte may pass.
				if name != "lz4" || how != "another in middle" {
					t.Errorf("%s, %s: no error", name, how)
				}
			} else if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: error of several lines: %q", name, how, err)
			}
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 0x10
	return b
}

func TestUnpackUnknown(t *testing.T) {
	for _, payload := range []string{"", "\x1f", "\x1f\x8b", "????????????"} {
		if _, err := unpack([]byte(payload), 1<<20); !errors.Is(err, errUnsupported) && payload != "\x1f\x8b" {
			t.Errorf("%q: %v", payload, err)
		}
	}
}

// TestLZ4Blocks uses several blocks and several frames.
func TestLZ4Blocks(t *testing.T) {
	want := bytes.Repeat([]byte("eight megabytes and more"), (2*lz4Block+12345)/24)
	var payload []byte
	for rest := want; len(rest) > 0; {
		n := min(len(rest), lz4Block)
		block := make([]byte, lz4.CompressBlockBound(n))
		size, err := lz4.CompressBlock(rest[:n], block, nil)
		if err != nil {
			t.Fatal(err)
		}
		payload = append(append(append(payload, lz4Magic...), le32(uint32(size))...), block[:size]...)
		rest = rest[n:]
	}
	got := make([]byte, len(want))
	if err := unpackLZ4(got, payload); err != nil || !bytes.Equal(got, want) {
		t.Errorf("unpackLZ4: %v, equal: %v", err, bytes.Equal(got, want))
	}
}

// TestLZOP covers what lzop writes with other options or in older versions: stored
// blocks, all checksums, a filter, an extra field, the short header.
func TestLZOP(t *testing.T) {
	stored := []byte("\x00\x00\x00\x05\x00\x00\x00\x05" + "\x06\x2c\x02\x15" + "\x36\x10\xa6\x86" + "hello" + "\x00\x00\x00\x00")
	long := "\x10\x40\x20\xa0\x09\x40\x03\x09" + "\x00\x00\x0b\x43" + "filt" + "modemtim" + "mtHi" + "\x01n" + "csum" + "\x00\x00\x00\x02xx" + "csum"
	short := "\x09\x00\x20\xa0\x03" + "\x00\x00\x01\x01" + "modemtim" + "\x00" + "csum"
	for name, head := range map[string]string{"long": long, "short": short} {
		file := append([]byte(lzopMagic+head), stored...)
		got := make([]byte, 5)
		if err := unpackLZOP(got, file); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for n := range len(file) {
			if unpackLZOP(got, file[:n]) == nil {
				t.Errorf("%s: no error with %d bytes of %d", name, n, len(file))
			}
		}
		file[len(file)-5] ^= 1
		if err := unpackLZOP(got, file); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: damaged data: %v", name, err)
		}
	}
}
