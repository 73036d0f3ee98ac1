package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vmm/api"
	"vmm/client"
)

func (p *program) newPort() *cobra.Command {
	cmd := p.names(&cobra.Command{
		Use:   "port NAME [GUESTPORT[/tcp|/udp]]",
		Short: "Print which ports of the host lead to a guest (run -p)",
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := p.open(args[0])
			if err != nil {
				return err
			}
			defer g.Close()
			about, err := client.Describe(g.Entry)
			if err != nil {
				return &statusError{exitHost, err}
			}
			var want guestPort
			if len(args) > 1 {
				if err := want.set(args[1]); err != nil {
					return &statusError{exitUsage, err}
				}
			}
			if about.State == api.Ended {
				return &statusError{exitHost, fmt.Errorf("guest %s has ended; see 'vmm ps -a'", args[0])}
			}
			found := false
			for _, port := range about.Ports {
				switch {
				case want == guestPort{}:
					fmt.Fprintf(cmd.OutOrStdout(), "%d/%s -> %s\n", port.GuestPort, oneLine(string(port.Protocol)), oneLine(listens(port)))
				case want == guestPort{port.GuestPort, port.Protocol}:
					fmt.Fprintln(cmd.OutOrStdout(), oneLine(listens(port)))
					found = true
				}
			}
			if want != (guestPort{}) && !found {
				return &statusError{exitHost, fmt.Errorf("guest %s: its port %v is not published; 'vmm port %s' has those that are", args[0], want, args[0])}
			}
			return nil
		},
	}, 1)
	one := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 2 {
			return &statusError{exitUsage, fmt.Errorf("unexpected argument %q; see '%s --help'", args[2], cmd.CommandPath())}
		}
		return one(cmd, args[:min(len(args), 1)])
	}
	return cmd
}

// guestPort is a guest's port, as the command line names it.
type guestPort struct {
	number   int
	protocol api.PortProtocol
}

// set parses PORT[/tcp|/udp].
func (g *guestPort) set(text string) error {
	number, protocol, given := strings.Cut(text, "/")
	if g.protocol = api.PortProtocol(protocol); !given {
		g.protocol = api.Tcp
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !g.protocol.Valid() {
		return fmt.Errorf("guest's port %q: must be PORT[/tcp|/udp], such as 22 or 53/udp", text)
	}
	g.number = int(n)
	return nil
}

func (g guestPort) String() string { return fmt.Sprintf("%d/%s", g.number, g.protocol) }

// listens returns the host address of a published port.
func listens(p api.Port) string { return net.JoinHostPort(p.Address, strconv.Itoa(p.Port)) }

// portList lists all ports in the format of docker ps.
func portList(ports []api.Port) string {
	if len(ports) == 0 {
		return "-"
	}
	var words []string
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%s->%d/%s", listens(p), p.GuestPort, p.Protocol))
	}
	return strings.Join(words, ", ")
}
