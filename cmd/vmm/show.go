package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vmm/api"
	"vmm/client"
	"vmm/service"
)

func (p *program) newPS() *cobra.Command {
	var all, quiet bool
	format := table
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the guests of this host",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := p.roster()
			if err != nil {
				return err
			}
			guests, err := client.List(r)
			if err != nil {
				return &statusError{exitHost, err}
			}
			if !all {
				guests = living(guests)
			}
			return list(cmd.OutOrStdout(), guests, quiet, format == asJSON)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "those that have ended, too")
	f.BoolVarP(&quiet, "quiet", "q", false, "names only")
	format.add(cmd)
	return cmd
}

// format is the flag --format.
type format string

const (
	table  format = "table"
	asJSON format = "json"
)

func (f *format) add(cmd *cobra.Command) {
	cmd.Flags().Var(f, "format", "table, or json: an object a line")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{string(table), string(asJSON)}, cobra.ShellCompDirectiveNoFileComp))
}

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	if *f = format(s); *f != table && *f != asJSON {
		return fmt.Errorf("must be table or json")
	}
	return nil
}

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (*format) Type() string { return "format" }

func living(guests []api.Guest) (alive []api.Guest) {
	for _, g := range guests {
		if g.State != api.Ended {
			alive = append(alive, g)
		}
	}
	return alive
}

func list(w io.Writer, guests []api.Guest, quiet, lines bool) error {
	switch {
	case quiet:
		for _, g := range guests {
			fmt.Fprintln(w, oneLine(g.Name))
		}
		return nil
	case lines:
		for _, g := range guests {
			if err := printJSON(w, g, ""); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATUS\tCPUS\tMEMORY\tCREATED\tPID\tPORTS\tKERNEL")
	for _, g := range guests {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s ago\t%d\t%s\t%s\n", oneLine(g.Name), oneLine(status(g)), setting(g, "CPUs"), memory(g), ago(g.Created), g.Pid, oneLine(portList(g.Ports)), setting(g, "Kernel"))
	}
	return t.Flush()
}

// status describes a guest's state to a person.
func status(g api.Guest) string {
	switch {
	case g.End != nil && g.End.At.IsZero():
		return g.End.Reason
	case g.End != nil:
		return fmt.Sprintf("ended (%d: %s) %s ago", g.End.Status, g.End.Reason, ago(g.End.At))
	}
	state := string(g.State)
	if g.State == api.Running && g.Started != nil {
		state = "up " + ago(*g.Started)
	}
	if client.Stopped(g) {
		state += " (its process is stopped)"
	}
	return state
}

// setting returns a field of the Config, escaped for the terminal: others may have chosen
// the names of files.
func setting(g api.Guest, field string) string {
	v, ok := g.Config[field]
	if !ok {
		return "-"
	}
	return oneLine(fmt.Sprint(v))
}

func memory(g api.Guest) string {
	if n, ok := g.Config["Memory"].(float64); ok {
		return fmt.Sprintf("%dM", uint64(n)>>20)
	}
	return "-"
}

// ago says how long ago t was, in docker's style: one unit is enough.
func ago(t time.Time) string {
	d := max(time.Since(t), 0)
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / unit.of); n > 0 {
			return plural(n, unit.name)
		}
	}
	return plural(int(d/time.Second), "second")
}

func plural(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

func (p *program) newInspect() *cobra.Command {
	return p.names(&cobra.Command{
		Use:   "inspect NAME...",
		Short: "Print all about guests, in JSON",
		RunE: func(cmd *cobra.Command, names []string) error {
			guests := []api.Guest{}
			for _, name := range names {
				g, err := p.open(name)
				if err != nil {
					return err
				}
				about, err := client.Describe(g.Entry)
				if err != nil {
					return &statusError{exitHost, err}
				}
				guests = append(guests, about)
			}
			return printJSON(cmd.OutOrStdout(), guests, "  ")
		},
	}, 0)
}

func (p *program) newLogs() *cobra.Command {
	var follow bool
	lines := tail(service.AllLines)
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a guest has printed to its console",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.one(cmd, names[0], func(ctx context.Context, g *client.Guest) error {
				return printLog(ctx, g, follow, int(lines), cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the guest ends")
	cmd.Flags().VarP(&lines, "tail", "n", "only the last `lines`")
	return p.names(cmd, 1)
}

// tail is the flag --tail: a number of lines, or all.
type tail int

// Set implements pflag.Value.
func (n *tail) Set(s string) error {
	if s == "all" {
		*n = service.AllLines
		return nil
	}
	v, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errors.New("must be a number of lines, or all")
	}
	*n = tail(v)
	return nil
}

// String implements pflag.Value.
func (n *tail) String() string {
	if *n < 0 {
		return "all"
	}
	return strconv.Itoa(int(*n))
}

// Type implements pflag.Value.
func (*tail) Type() string { return "lines" }

func printLog(ctx context.Context, g *client.Guest, follow bool, lines int, w io.Writer) error {
	var log io.ReadCloser
	var err error
	if g.Alive && follow {
		log, err = g.Logs(ctx, true, lines)
	} else {
		log, err = service.ReadLog(g.Open, lines)
	}
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := io.Copy(w, log); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// one calls f for one guest, until it is interrupted.
func (p *program) one(cmd *cobra.Command, name string, f func(ctx context.Context, g *client.Guest) error) error {
	g, err := p.open(name)
	if err != nil {
		return err
	}
	defer g.Close()
	ctx, stop := signal.NotifyContext(cmd.Context(), unignored(os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	return apiStatus(f(ctx, g))
}

func (p *program) newTrace() *cobra.Command {
	return p.names(&cobra.Command{
		Use:   "trace NAME",
		Short: "Print a guest's exits to vmm as they happen, a JSON object a line",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.one(cmd, names[0], func(ctx context.Context, g *client.Guest) error {
				exits, err := g.Trace(ctx)
				if err != nil {
					return err
				}
				defer exits.Close()
				io.Copy(cmd.OutOrStdout(), exits) // until the user ends it
				return nil
			})
		},
	}, 1)
}

func (p *program) newStats() *cobra.Command {
	format := table
	cmd := &cobra.Command{
		Use:   "stats NAME",
		Short: "Print what a guest uses, and what its devices have done",
		RunE: func(cmd *cobra.Command, names []string) error {
			return p.one(cmd, names[0], func(ctx context.Context, g *client.Guest) error {
				s, err := g.Stats(ctx)
				if err != nil {
					return err
				}
				if format == asJSON {
					return printJSON(cmd.OutOrStdout(), s, "")
				}
				return printStats(cmd.OutOrStdout(), s)
			})
		},
	}
	format.add(cmd)
	return p.names(cmd, 1)
}

func printStats(w io.Writer, s api.Stats) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "up\t%v\n", (time.Duration(s.UptimeMs) * time.Millisecond).Round(time.Millisecond))
	fmt.Fprintf(t, "memory\t%dM of the guest's, %dM of the host's\n", s.MemoryBytes>>20, s.ResidentBytes>>20)
	if b := s.Balloon; b != nil {
		fmt.Fprintf(t, "balloon\t%dM of %dM\n", b.ActualBytes>>20, b.TargetBytes>>20)
	}
	for _, v := range s.Vcpus {
		fmt.Fprintf(t, "vcpu %d\t%d ms in the guest, %d ms outside\t%s\n", v.Id, v.GuestMs, v.HostMs, counts(v.Exits))
	}
	for _, d := range s.Devices {
		fmt.Fprintf(t, "%s\t%d requests, %d bytes in, %d bytes out\t%s\n", oneLine(d.Name), d.Counters["requests"], d.Counters["bytes_to_guest"], d.Counters["bytes_from_guest"],
			counts(without(d.Counters, "requests", "bytes_to_guest", "bytes_from_guest")))
	}
	return t.Flush()
}

func without(m map[string]int64, names ...string) map[string]int64 {
	rest := maps.Clone(m)
	for _, n := range names {
		delete(rest, n)
	}
	return rest
}

// counts lists the counts that are not 0, by name.
func counts(m map[string]int64) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != 0 {
			words = append(words, fmt.Sprintf("%s %d", strings.ReplaceAll(k, "_", " "), m[k]))
		}
	}
	return oneLine(strings.Join(words, ", "))
}
