package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vmm/client"
	"vmm/roster"
)

// lifecycle returns the commands for guests that run already: clients of their APIs.
func (p *program) lifecycle() []*cobra.Command {
	return []*cobra.Command{
		p.newPS(), p.newInspect(), p.newPort(), p.newLogs(), p.newConsole(),
		p.newVerb("pause", "Stop a guest's vCPUs and devices where they are", (*client.Guest).Pause),
		p.newVerb("resume", "Have a paused guest go on", (*client.Guest).Resume),
		p.newStop(),
		p.newVerb("kill", "End a guest as if its power failed", (*client.Guest).Kill),
		p.newWait(), p.newRemove(), p.newStats(), p.newBalloon(), p.newTrace(),
	}
}

// roster opens the runtime directory.
func (p *program) roster() (*roster.Roster, error) {
	r, err := roster.Open(p.runtimeDir)
	if err != nil {
		return nil, &statusError{exitHost, err}
	}
	return r, nil
}

// open returns the guest with that name.
func (p *program) open(name string) (*client.Guest, error) {
	r, err := p.roster()
	if err != nil {
		return nil, err
	}
	g, err := client.Open(r, name)
	if err != nil {
		return nil, nameStatus(err)
	}
	g.Owner = new(rescuer).panicked
	return g, nil
}

// nameStatus distinguishes a wrong name from a host that refuses.
func nameStatus(err error) error {
	var unknown *roster.NotFoundError
	if errors.As(err, &unknown) {
		return &statusError{exitNotFound, err}
	}
	return &statusError{exitUsage, err}
}

// names sets the arguments of a command to one or several guests, with completion.
func (p *program) names(cmd *cobra.Command, most int) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return &statusError{exitUsage, fmt.Errorf("no guest is named; 'vmm ps' has them, see '%s --help'", cmd.CommandPath())}
		case most > 0 && len(args) > most:
			return &statusError{exitUsage, fmt.Errorf("unexpected argument %q; see '%s --help'", args[most], cmd.CommandPath())}
		}
		return nil
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) (found []string, _ cobra.ShellCompDirective) {
		if r, err := p.roster(); err == nil && (most == 0 || len(args) < most) {
			all, _ := r.List()
			for _, e := range all {
				found = append(found, e.Name)
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// each calls f for each named guest, and prints the names of those for which it
// succeeded.
func (p *program) each(cmd *cobra.Command, names []string, f func(ctx context.Context, name string) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), unignored(os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	var failed error
	for _, name := range names {
		if err := f(ctx, name); err != nil {
			if failed != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "vmm: %s\n", oneLine(failed.Error()))
			}
			failed = err
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), name)
	}
	return failed
}

// eachGuest is each for guests that run.
func (p *program) eachGuest(cmd *cobra.Command, names []string, f func(g *client.Guest, ctx context.Context) error) error {
	return p.each(cmd, names, func(ctx context.Context, name string) error {
		g, err := p.open(name)
		if err != nil {
			return err
		}
		defer g.Close()
		if !g.Alive {
			return &statusError{exitHost, fmt.Errorf("guest %s has ended; see 'vmm ps -a'", name)}
		}
		return apiStatus(f(g, ctx))
	})
}

// apiStatus says whose fault an error answer is.
func apiStatus(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{exitHost, err}
}

func (p *program) newVerb(verb, short string, f func(*client.Guest, context.Context) error) *cobra.Command {
	return p.names(&cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		RunE:  func(cmd *cobra.Command, names []string) error { return p.eachGuest(cmd, names, f) },
	}, 0)
}

func (p *program) newStop() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Press a guest's power button, and kill it if it does not power off in time",
	}
	cmd.Flags().DurationVarP(&timeout, "timeout", "t", 0, "how long it may take (default: its --stop-timeout)")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		var limit *time.Duration
		if cmd.Flags().Changed("timeout") {
			limit = &timeout
		}
		if timeout < 0 {
			return &statusError{exitUsage, fmt.Errorf("--timeout %v: must not be negative", timeout)}
		}
		return p.eachGuest(cmd, names, func(g *client.Guest, ctx context.Context) error { return g.Stop(ctx, limit) })
	}
	return p.names(cmd, 0)
}

func (p *program) newWait() *cobra.Command {
	return p.names(&cobra.Command{
		Use:   "wait NAME...",
		Short: "Wait until guests have ended, and print the exit status of each",
		RunE: func(cmd *cobra.Command, names []string) error {
			for _, name := range names {
				err := p.one(cmd, name, func(ctx context.Context, g *client.Guest) error {
					end, err := g.End(ctx)
					if err == nil {
						fmt.Fprintln(cmd.OutOrStdout(), end.Status)
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}, 0)
}

func (p *program) newRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove what is kept of guests that have ended",
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill them first if they run")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		r, err := p.roster()
		if err != nil {
			return err
		}
		return p.each(cmd, names, func(ctx context.Context, name string) error {
			g, err := p.open(name)
			if err != nil {
				return err
			}
			defer g.Close()
			if force && g.Alive {
				if err := g.Kill(ctx); err != nil {
					return apiStatus(err)
				}
			}
			if err := r.Remove(name); err != nil && !(force && errors.As(err, new(*roster.NotFoundError))) {
				return apiStatus(err)
			}
			return nil
		})
	}
	return p.names(cmd, 0)
}

func (p *program) newBalloon() *cobra.Command {
	cmd := p.names(&cobra.Command{
		Use:   "balloon NAME SIZE",
		Short: "Ask a guest to leave so much of its memory to the host (64M; 0 gives it back)",
		RunE: func(cmd *cobra.Command, args []string) error {
			var n size
			if err := n.Set(args[1]); err != nil {
				return &statusError{exitUsage, fmt.Errorf("size %q: %w", args[1], err)}
			}
			return p.eachGuest(cmd, args[:1], func(g *client.Guest, ctx context.Context) error { return g.SetBalloon(ctx, int64(n)) })
		},
	}, 2)
	named := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return &statusError{exitUsage, fmt.Errorf("the size is missing, such as 64M; see '%s --help'", cmd.CommandPath())}
		}
		return named(cmd, args)
	}
	return cmd
}
