package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"vmm/client"
	"vmm/console"
	"vmm/task"
)

func (p *program) newConsole() *cobra.Command {
	return p.names(&cobra.Command{
		Use:   "console NAME",
		Short: "Attach to a guest's console; Ctrl-a d leaves it",
		Long: "Attach to a guest's console: what is typed goes to the guest, what it prints comes here. Several may attach to one guest.\n\n" +
			"Ctrl-a d leaves, Ctrl-a x kills the guest, Ctrl-a ? helps.",
		RunE: func(cmd *cobra.Command, names []string) error { return p.one(cmd, names[0], attach) },
	}, 1)
}

// leaveLimit is how long a guest may take to accept what was typed last.
const leaveLimit = time.Second

// attach connects the terminal, or whatever the standard streams are, to the guest's
// console until one of them ends or ctx is done.
func attach(ctx context.Context, g *client.Guest) error {
	standInBackground()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	var r rescuer
	owner := task.Owner(r.panicked)
	g.Owner = owner
	end := func() {
		owner.Go(func() { g.Kill(ctx) }) // not on the keyboard's goroutine; a failure shows anyway
	}
	// On detach, what was typed before is delivered first, if the guest takes it.
	var leaving atomic.Bool
	detach := func() {
		leaving.Store(true)
		owner.AfterFunc(leaveLimit, leave)
	}
	con, err := console.Open("stdio", console.Options{Quit: end, Detach: detach, Break: func() { g.SendBreak(ctx) }, Owner: owner})
	if err != nil {
		return err
	}
	defer con.Close()
	r.con.Store(con)
	defer owner.Rescue()
	guest, err := g.Console(ctx)
	if err != nil {
		return err
	}
	defer owner.ContextFunc(ctx, func() { guest.Close() })()
	if con.Terminal() {
		fmt.Fprintf(os.Stderr, "vmm: this is the console of %s; Ctrl-a d leaves it, Ctrl-a ? helps\n", g.Name)
	}
	typing := task.Group{Owner: owner}
	typing.Go(func() {
		io.Copy(guest, con)
		if leaving.Load() {
			leave()
		}
	})
	_, err = io.Copy(con, guest)
	detached := ctx.Err() != nil
	con.Close()
	typing.Wait()
	if err != nil && !detached {
		return fmt.Errorf("guest %s: console: %w", g.Name, err)
	}
	return nil
}
