package modules_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"vmm/guest/modules"
)

// object returns an ELF file whose .modinfo section holds the entries.
func object(entries ...string) []byte {
	info := strings.Join(entries, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, header-7)...)
	le.PutUint16(b[16:], 1)  // ET_REL
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(header+len(info)+len(names))) // e_shoff
	le.PutUint16(b[52:], header)
	le.PutUint16(b[58:], section)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2) // e_shstrndx
	b = append(append(b, info...), names...)
	add := func(name, kind uint32, offset, size int) {
		s := make([]byte, section)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], kind)
		le.PutUint64(s[24:], uint64(offset))
		le.PutUint64(s[32:], uint64(size))
		le.PutUint64(s[48:], 1)
		b = append(b, s...)
	}
	add(0, 0, 0, 0)
	add(1, 1, header, len(info))
	add(10, 3, header+len(info), len(names))
	return b
}

func TestParse(t *testing.T) {
	got, err := modules.Parse(object("license=GPL", "name=virtio_net", "depends=virtio-ring,virtio", "alias=virtio:d00000001v*", "alias=two words", "alias="))
	if err != nil {
		t.Fatal(err)
	}
	want := modules.Module{Name: "virtio_net", Depends: []string{"virtio_ring", "virtio"}, Aliases: []string{"virtio:d00000001v*"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "no ELF file", string(object("name=x")[:100])} {
		if _, err := modules.Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%q) succeeded", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(object("name=a", "depends=b,c", "alias=pci:v*"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := modules.Parse(b)
		if err != nil {
			return
		}
		for _, a := range m.Aliases {
			if a == "" || strings.ContainsAny(a, " \n") {
				t.Errorf("alias %q would break the index", a)
			}
		}
	})
}

// tree makes a directory of modules, each "name: dependency,dependency".
func tree(t *testing.T, list ...string) *modules.Tree {
	t.Helper()
	dir := t.TempDir()
	for _, m := range list {
		name, depends, _ := strings.Cut(m, ":")
		b := object("depends="+depends, "alias=test:"+name+"*")
		if strings.HasSuffix(name, ".zst") {
			w, _ := zstd.NewWriter(nil)
			b = w.EncodeAll(b, nil)
		}
		write(t, filepath.Join(dir, "kernel", name), b)
	}
	write(t, filepath.Join(dir, "modules.builtin"), []byte("kernel/fs/ext4.ko\n"))
	tree, err := modules.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func names(list []modules.Module) string {
	var s []string
	for _, m := range list {
		s = append(s, m.Name)
	}
	return strings.Join(s, " ")
}

func TestOrder(t *testing.T) {
	tr := tree(t, "ring.ko:core", "core.ko.zst:", "net-a.ko:ring,core,ext4", "blk.ko:ring", "loop1.ko:loop2", "loop2.ko:loop1", "orphan.ko:gone")
	for _, test := range []struct{ wanted, want, fault string }{
		{"net-a blk", "core ring net_a blk", ""},
		{"net_a net_a core", "core ring net_a", ""},
		{"ext4", "", ""}, // built in
		{"loop1", "", "depends on itself"},
		{"orphan", "", "gone, wanted by orphan"},
	} {
		got, err := tr.Order(strings.Fields(test.wanted)...)
		if err == nil && (test.fault != "" || names(got) != test.want) ||
			err != nil && (test.fault == "" || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("Order(%s): %s, %v; want %s %s", test.wanted, names(got), err, test.want, test.fault)
		}
	}
}

func TestOpenBad(t *testing.T) {
	if _, err := modules.Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("Open of nothing succeeded")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bad.ko.xz"), []byte("not xz"))
	if _, err := modules.ReadFile(filepath.Join(dir, "bad.ko.xz")); err == nil {
		t.Error("a broken file was read")
	}
}

func TestIndex(t *testing.T) {
	order, err := tree(t, "core.ko:", "ring.ko:core", "net.ko:ring,core").Order("net")
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := modules.Index(order).Write(&file); err != nil {
		t.Fatal(err)
	}
	x, err := modules.ReadIndex(&file)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		modalias string
		want     []string
	}{
		{"test:net.ko-device", []string{"core", "ring", "net"}},
		{"ring", []string{"core", "ring"}}, // by its own name
		{"test:", nil},
		{"", nil},
		{"test:[", nil},
	} {
		if got := x.For(test.modalias); !slices.Equal(got, test.want) {
			t.Errorf("For(%q) = %v, want %v", test.modalias, got, test.want)
		}
	}
	if _, err := modules.ReadIndex(strings.NewReader("lonely\n")); err == nil {
		t.Error("an index line without dependencies was read")
	}
}
