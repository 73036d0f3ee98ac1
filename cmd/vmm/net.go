package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vmm/machine"
)

// nets is the flag --net, which may be repeated:
//
//	none | user[,OPTION...] | tap=NAME[,queues=N][,OPTION...]
//
// Without it a guest has one card in user mode.
type nets struct {
	list []machine.Net
	set  bool
}

const netSyntax = "user, tap=NAME or none, then options such as ,mac=52:54:00:12:34:56"

// Set implements pflag.Value.
func (n *nets) Set(text string) error {
	words := splitComma(text)
	kind, value, _ := strings.Cut(words[0], "=")
	var card machine.Net
	switch {
	case kind == "none" && len(words) == 1:
		if len(n.list) > 0 {
			return fmt.Errorf("none beside another: a guest has cards or it has none")
		}
		n.set = true
		return nil
	case kind == "user" && value == "":
	case kind == "tap" && value != "":
		card.Tap = value
	default:
		return fmt.Errorf("is %s", netSyntax)
	}
	if n.set && len(n.list) == 0 {
		return fmt.Errorf("beside none: a guest has cards or it has none")
	}
	for _, word := range words[1:] {
		if err := setNetOption(&card, word); err != nil {
			return err
		}
	}
	n.list, n.set = append(n.list, card), true
	return nil
}

func setNetOption(c *machine.Net, word string) (err error) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "mac":
		c.MAC = value
	case "queues":
		if c.Queues, err = strconv.Atoi(value); err != nil || c.Queues < 1 {
			return fmt.Errorf("queues=%s: must be a number from 1 on", value)
		}
	case "pcap":
		if c.PCAP = value; value == "" {
			return fmt.Errorf("pcap: has no file; write it as pcap=FILE")
		}
	case "rate":
		var bytes size
		if err := bytes.Set(value); err != nil {
			return fmt.Errorf("rate=%s: %w", value, err)
		}
		c.BytesPerSecond = uint64(bytes)
	case "packets":
		if c.FramesPerSecond, err = strconv.ParseUint(value, 10, 32); err != nil || c.FramesPerSecond == 0 {
			return fmt.Errorf("packets=%s: must be a number from 1 on", value)
		}
	case "burst":
		if c.Burst, err = time.ParseDuration(value); err != nil || c.Burst <= 0 {
			return fmt.Errorf("burst=%s: must be a time such as 100ms", value)
		}
	case "host-loopback":
		c.HostLoopback, err = onOff(key, value, true)
	default:
		known := []string{"mac", "queues", "pcap", "rate", "packets", "burst", "host-loopback"}
		if near := nearest(known, key); near != "" {
			return fmt.Errorf("unknown option %q; did you mean %s?", word, near)
		}
		return fmt.Errorf("unknown option %q; there are %s", word, strings.Join(known, ", "))
	}
	return err
}

// String implements pflag.Value.
func (n *nets) String() string {
	if !n.set {
		return "user"
	}
	words := []string{}
	for _, c := range n.list {
		if c.Tap != "" {
			words = append(words, "tap="+c.Tap)
		} else {
			words = append(words, "user")
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// Type implements pflag.Value.
func (*nets) Type() string { return "net" }

// complete returns the cards: one in user mode unless the flags say otherwise. The first
// card in user mode gets the forwarded ports.
func (n *nets) complete(forwards []machine.Forward) ([]machine.Net, error) {
	list := n.list
	if !n.set {
		list = []machine.Net{{}}
	}
	if len(forwards) == 0 {
		return list, nil
	}
	for i := range list {
		if list[i].Tap == "" {
			list[i].Forwards = forwards
			return list, nil
		}
	}
	return nil, fmt.Errorf("--publish: there is no --net user to forward ports to")
}

// publish is the flag -p, which may be repeated:
//
//	[ADDRESS:]HOST:GUEST[/tcp|/udp]
//
// as in docker, except that only this host can connect unless told otherwise.
type publish []machine.Forward

// Set implements pflag.Value.
func (p *publish) Set(text string) error {
	const syntax = "must be [ADDRESS:]HOST-PORT:GUEST-PORT[/udp], such as 2222:22"
	ports, protocol, _ := strings.Cut(text, "/")
	f := machine.Forward{UDP: protocol == "udp"}
	if protocol != "" && protocol != "udp" && protocol != "tcp" {
		return fmt.Errorf("%q: the protocol is tcp or udp", protocol)
	}
	i := strings.LastIndexByte(ports, ':')
	if i < 0 {
		return fmt.Errorf("%s", syntax)
	}
	guest, err := strconv.ParseUint(ports[i+1:], 10, 16)
	if err != nil || guest == 0 {
		return fmt.Errorf("guest's port %q: %s", ports[i+1:], syntax)
	}
	f.Guest = uint16(guest)
	listen := ports[:i]
	if !strings.Contains(listen, ":") {
		listen = "127.0.0.1:" + listen
	}
	if f.Listen, err = netip.ParseAddrPort(listen); err != nil {
		return fmt.Errorf("host's address %q: %s", ports[:i], syntax)
	}
	*p = append(*p, f)
	return nil
}

// String implements pflag.Value.
func (p *publish) String() string {
	var words []string
	for _, f := range *p {
		words = append(words, fmt.Sprintf("%v:%d", f.Listen, f.Guest))
	}
	return strings.Join(words, " ")
}

// Type implements pflag.Value.
func (*publish) Type() string { return "ports" }
