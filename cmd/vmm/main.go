// Vmm runs virtual machines on Linux KVM.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func main() { os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// execute runs one command line and returns the exit status.
func execute(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitPowerOff
	}
	var status *statusError
	if !errors.As(err, &status) {
		// What cobra itself finds wrong with a command line.
		status = &statusError{exitUsage, err}
	}
	if status.err != nil {
		fmt.Fprintf(stderr, "vmm: %v\n", status.err)
	}
	return status.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "vmm",
		Short: "Run virtual machines on Linux KVM",
		Long: "Vmm runs virtual machines on Linux KVM: unmodified Linux kernels, on a terminal.\n\n" +
			"Exit status of 'vmm run' and all others: see 'vmm help exit-status'.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newRun(), newDoctor(), newVersion(), exitStatusTopic())
	return root
}

// flagError adds the nearest flag to the complaint about one that is unknown.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if near := nearestFlag(cmd.Flags(), unknown.GetSpecifiedName()); near != "" {
			err = fmt.Errorf("%w; did you mean --%s?", err, near)
		} else {
			err = fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
		}
	}
	return &statusError{exitUsage, err}
}

// nearestFlag returns the flag whose name is most like name, or "".
func nearestFlag(flags *pflag.FlagSet, name string) string {
	best, bestDistance := "", 1+len(name)/2
	flags.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); !f.Hidden && d < bestDistance {
			best, bestDistance = f.Name, d
		}
	})
	return best
}

// distance is how many letters must be added, dropped or changed to make a of b.
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
