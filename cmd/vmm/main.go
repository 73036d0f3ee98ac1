// Vmm runs virtual machines on Linux KVM.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"vmm/machine"
	"vmm/roster"
	"vmm/task"
)

func main() {
	inherit()
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr, kvm: machine.KVMDevice, cpuinfo: machine.CPUInfo}
	os.Exit(p.execute(os.Args[1:]))
}

// program is the command and its surroundings, which tests replace.
type program struct {
	in       io.Reader
	out, err io.Writer
	kvm      string // path of the KVM device
	cpuinfo  string // path of the file that describes the processor

	runtimeDir string // the flag --runtime-dir
}

// execute runs one command line and returns the exit status.
func (p *program) execute(args []string) int { return p.executeRoot(p.newRoot(), args) }

func (p *program) executeRoot(root *cobra.Command, args []string) int {
	defer task.Owner(new(rescuer).panicked).Rescue()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitPowerOff
	}
	var status *statusError
	if !errors.As(err, &status) {
		// An error that cobra itself finds in a command line.
		status = &statusError{exitUsage, fmt.Errorf("%w; see 'vmm --help'", err)}
	}
	var internal *task.PanicError
	switch {
	case status.err == nil:
	case readerGone(status.err):
		return exitSignal + int(syscall.SIGPIPE) // silently, as after a signal
	case errors.As(status.err, &internal):
		fmt.Fprintf(p.err, "vmm: %v\n", status.err) // with its stack
	default:
		fmt.Fprintf(p.err, "vmm: %s\n", oneLine(status.err.Error()))
	}
	return status.code
}

// readerGone reports whether standard output no longer has a reader.
func readerGone(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Path == os.Stdout.Name() && errors.Is(err, syscall.EPIPE)
}

func (p *program) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "vmm",
		Short: "Run virtual machines on Linux KVM",
		Long: "Vmm runs virtual machines on Linux KVM: unmodified Linux kernels, on a terminal.\n\n" +
			"Exit status of 'vmm run' and all others: see 'vmm help exit-status'.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(p.in)
	root.SetOut(p.out) // now, because the completions remember it
	root.SetErr(p.err)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(bareSwitches(root.UsageFunc()))
	root.PersistentFlags().StringVar(&p.runtimeDir, "runtime-dir", roster.Dir(), "where the guests of this host are known by their names")
	root.AddCommand(p.newRun())
	root.AddCommand(p.lifecycle()...)
	root.AddCommand(p.newDoctor(), newVersion(), exitStatusTopic())
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if !c.Runnable() && c.HasSubCommands() { // cobra's completion
			c.Args, c.RunE = knownCommand, root.RunE
		}
	}
	return root
}

// newHelp is cobra's help command, except that an unknown topic is an error.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND or TOPIC]",
		Short: "Help about a command or a topic",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return err
			case len(rest) > 0:
				return knownCommand(about, rest)
			}
			about.InitDefaultHelpFlag() // so that it is listed
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// knownCommand refuses the name of a subcommand that cmd does not have.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	path := cmd.CommandPath()
	advice := fmt.Sprintf("see '%s --help'", path)
	if near := nearest(names, args[0]); near != "" {
		advice = fmt.Sprintf("did you mean '%s %s'?", path, near)
	}
	return &statusError{exitUsage, fmt.Errorf("unknown command %q; %s", args[0], advice)}
}

// initrdAdvice is for users who know -i as the short form of --initrd, which it once
// was.
const initrdAdvice = "for an initrd write --initrd FILE: -i is --interactive"

// runArgs is noArgs for 'vmm run'.
func runArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.Flags().Changed("interactive") {
		return &statusError{exitUsage, fmt.Errorf("unexpected argument %q; %s", args[0], initrdAdvice)}
	}
	return noArgs(cmd, args)
}

// noArgs refuses arguments that are not flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &statusError{exitUsage, fmt.Errorf("unexpected argument %q; see '%s --help'", args[0], cmd.CommandPath())}
	}
	return nil
}
