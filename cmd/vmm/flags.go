package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wants says what values a flag takes, by the type of its value.
var wants = map[string]string{
	"int":      "must be a whole number of a few digits, like 2",
	"duration": "must be a time with its unit, like 30s",
	"mode":     "must be auto, direct, bzimage or pvh",
	"bool":     "must be true or false",
}

// flagError says what is wrong with a flag, and what to do, in this program's words.
func flagError(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
		syntax  *pflag.InvalidSyntaxError
	)
	help := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
	switch {
	case !cmd.HasParent() && cmd.Flags().NArg() > 0:
		// The flag belongs to a command that does not exist.
		return knownCommand(cmd, cmd.Flags().Args())
	case errors.As(err, &unknown):
		err = unknownFlag(cmd.Flags(), unknown, help)
	case errors.As(err, &missing):
		err = fmt.Errorf("--%s: its value is missing; %s", missing.GetFlag().Name, help)
	case errors.As(err, &invalid):
		err = invalidValue(invalid)
	case errors.As(err, &syntax):
		err = fmt.Errorf("%q is not a flag; %s", syntax.GetSpecifiedFlag(), help)
	default:
		err = fmt.Errorf("%w; %s", err, help)
	}
	return &statusError{exitUsage, err}
}

func unknownFlag(flags *pflag.FlagSet, e *pflag.NotExistError, help string) error {
	name := e.GetSpecifiedName()
	if letters := e.GetSpecifiedShortnames(); letters != "" {
		if flags.Changed("interactive") { // -iFILE
			help = initrdAdvice
		}
		return fmt.Errorf("unknown flag -%s; %s", name, help)
	}
	if near := nearestFlag(flags, name); near != "" {
		help = fmt.Sprintf("did you mean --%s?", near)
	}
	return fmt.Errorf("unknown flag --%s; %s", name, help)
}

func invalidValue(e *pflag.InvalidValueError) error {
	f := e.GetFlag()
	why := e.Unwrap().Error()
	if w := wants[f.Value.Type()]; w != "" {
		why = w
	}
	if f.Name == "interactive" { // -i=FILE
		why += "; " + initrdAdvice
	}
	return fmt.Errorf("--%s %q: %s", f.Name, e.GetValue(), why)
}

// bareSwitches returns usage with --rm instead of pflag's --rm[=true|false].
func bareSwitches(usage func(*cobra.Command) error) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		found := map[*pflag.Flag]pflag.Value{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				found[f] = f.Value
				f.Value = bareSwitch{f.Value}
			}
		})
		defer func() {
			for f, v := range found {
				f.Value = v
			}
		}()
		return usage(cmd)
	}
}

// bareSwitch is a bool of the only type for which pflag shows no value.
type bareSwitch struct{ pflag.Value }

// IsBoolFlag tells pflag that the flag needs no value.
func (bareSwitch) IsBoolFlag() bool { return true }

// Type implements pflag.Value.
func (bareSwitch) Type() string { return "boolfunc" }

// nearestFlag returns the flag whose name is most similar to name, or "".
func nearestFlag(flags *pflag.FlagSet, name string) string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return nearest(names, name)
}

// nearest returns the entry of names that is most similar to name: one that name is the
// beginning of, or one of which at most half is mistyped. It returns "" if there is none.
func nearest(names []string, name string) string {
	name = name[:min(len(name), 64)] // no name is that long
	best, bestDistance := "", 1+len(name)/2
	for _, n := range names {
		if len(name) > 1 && strings.HasPrefix(n, name) {
			return n
		}
		if d := distance(name, n); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance returns how many letters must be added, dropped or changed to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
