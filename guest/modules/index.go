package modules

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Index says what the modules of an initramfs need and drive. Its file has one line per
// module, after the modules that it depends on:
//
//	NAME DEPENDENCY,DEPENDENCY ALIAS ALIAS ...
//
// with "-" for no dependency.
type Index []Module

// Write writes the file.
func (x Index) Write(w io.Writer) error {
	for _, m := range x {
		depends := "-"
		if len(m.Depends) > 0 {
			depends = strings.Join(m.Depends, ",")
		}
		line := append([]string{m.Name, depends}, m.Aliases...)
		if _, err := fmt.Fprintln(w, strings.Join(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// ReadIndex reads the file. Modules have no Path.
func ReadIndex(r io.Reader) (Index, error) {
	var x Index
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			return nil, fmt.Errorf("modules: line %d: want a name and its dependencies", n)
		}
		m := Module{Name: fields[0], Aliases: fields[2:]}
		if fields[1] != "-" {
			m.Depends = strings.Split(fields[1], ",")
		}
		x = append(x, m)
	}
	return x, lines.Err()
}

// For returns the names of the modules that match a device's modalias or a name that the
// kernel requests: those that claim it and all their dependencies, in load order.
func (x Index) For(modalias string) []string {
	wanted := map[string]bool{}
	// From the back: a module stands after its dependencies.
	var order []string
	for _, m := range slices.Backward(x) {
		if !wanted[m.Name] && !m.claims(modalias) {
			continue
		}
		order = append(order, m.Name)
		for _, d := range m.Depends {
			wanted[d] = true
		}
	}
	slices.Reverse(order)
	return order
}

func (m *Module) claims(modalias string) bool {
	if m.Name == canonical(modalias) {
		return true
	}
	return slices.ContainsFunc(m.Aliases, func(pattern string) bool {
		ok, err := path.Match(pattern, modalias)
		return ok && err == nil
	})
}
