// Package modules finds the loadable modules of a kernel, puts them in load order, and
// loads those that a guest's devices ask for.
package modules

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// maxObject bounds an unpacked module: the largest in a stock kernel has 10 MB.
const maxObject = 256 << 20

// Tree is the directory lib/modules/RELEASE of a kernel package. It needs no modules.dep:
// each module names its own dependencies.
type Tree struct {
	dir     string
	files   map[string]string // name -> path
	builtin map[string]bool
}

// Open lists the modules below dir.
func Open(dir string) (*Tree, error) {
	t := &Tree{dir: dir, files: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, ok := moduleName(path); ok && err == nil && d.Type().IsRegular() {
			t.files[name] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, ok := moduleName(lines.Text()); ok {
			t.builtin[name] = true
		}
	}
	return t, lines.Err()
}

// moduleName returns the name of the module in the file at path, if it is one.
func moduleName(path string) (string, bool) {
	base := filepath.Base(path)
	for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst"} {
		if name, ok := strings.CutSuffix(base, suffix); ok {
			return canonical(name), true
		}
	}
	return "", false
}

// Order returns the named modules and all their dependencies, each one once and after its
// dependencies. Modules built into the kernel are left out.
func (t *Tree) Order(names ...string) ([]Module, error) {
	var order []Module
	state := map[string]int{} // 1 while its dependencies are visited, 2 when done
	var visit func(name, wantedBy string) error
	visit = func(name, wantedBy string) error {
		switch {
		case t.builtin[name] || state[name] == 2:
			return nil
		case state[name] == 1:
			return fmt.Errorf("module %s: depends on itself through %s", name, wantedBy)
		}
		state[name] = 1
		m, err := t.module(name, wantedBy)
		if err != nil {
			return err
		}
		for _, dep := range m.Depends {
			if err := visit(dep, name); err != nil {
				return err
			}
		}
		state[name] = 2
		order = append(order, m)
		return nil
	}
	for _, name := range names {
		if err := visit(canonical(name), "the list"); err != nil {
			return nil, err
		}
	}
	return slices.Clip(order), nil
}

func (t *Tree) module(name, wantedBy string) (Module, error) {
	path, ok := t.files[name]
	if !ok {
		return Module{}, fmt.Errorf("module %s, wanted by %s: not in %s", name, wantedBy, t.dir)
	}
	object, err := ReadFile(path)
	if err != nil {
		return Module{}, err
	}
	m, err := Parse(object)
	if err != nil {
		return Module{}, fmt.Errorf("module %s: %w", path, err)
	}
	m.Name, m.Path = name, path
	return m, nil
}

// ReadFile returns the module in a file (.ko, .ko.xz or .ko.zst), unpacked.
func ReadFile(path string) ([]byte, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	object, err := unpack(filepath.Ext(path), file)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	return object, nil
}

func unpack(ext string, file []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch ext {
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(file), 0)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(file)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		return file, nil
	}
	if err != nil {
		return nil, err
	}
	object, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err == nil && len(object) > maxObject {
		err = fmt.Errorf("unpacks to more than %d MiB", maxObject>>20)
	}
	return object, err
}
