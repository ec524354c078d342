package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/packet"
)

// packetFlags are the flags of the packet filter.
type packetFlags struct {
	mode       string
	interfaces []string
	management []string
	ports      []uint
	fragments  string
	limits     string
}

func (f *packetFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.mode, "packet", "off", "packet filter: auto (XDP, else nftables), xdp, nftables or off")
	fl.StringSliceVar(&f.interfaces, "packet-interface", nil, "network interfaces that the packet filter is for, as eth0")
	fl.StringSliceVar(&f.management, "packet-management", nil, "addresses or prefixes from which this machine is managed; the packet filter always passes them")
	fl.UintSliceVar(&f.ports, "packet-management-ports", []uint{22}, "TCP ports of this machine's management; who is connected to them cannot be denied")
	fl.StringVar(&f.fragments, "packet-fragments", "drop", "fragments of IP packets: drop, or limit by source")
	fl.StringVar(&f.limits, "packet-limits", "", "packets a second/at once of one address: syn=500/2000,udp=20000/40000,other=100/200; and SYNs that a listener gets before cookies: listener=4000/1000")
}

// config checks the flags.
func (f *packetFlags) config() (packet.Config, error) {
	c := packet.Config{Mode: packet.Mode(f.mode), Interfaces: f.interfaces, Policy: packet.DefaultPolicy()}
	c.Policy.Fragments = packet.Fragments(f.fragments)
	for _, s := range f.management {
		p, err := prefixOf(s)
		if err != nil {
			return c, fmt.Errorf("--packet-management: %w", err)
		}
		c.Management = append(c.Management, p)
	}
	for _, p := range f.ports {
		if p < 1 || p > 65535 {
			return c, fmt.Errorf("--packet-management-ports %d: a port is 1 to 65535", p)
		}
		c.ManagementPorts = append(c.ManagementPorts, uint16(p))
	}
	return c, f.limit(&c.Policy)
}

func (f *packetFlags) limit(p *packet.Policy) error {
	if f.limits == "" {
		return nil
	}
	of := map[string]*packet.Rate{"syn": &p.SYN, "udp": &p.UDP, "other": &p.Other, "listener": &p.Listener}
	for part := range strings.SplitSeq(f.limits, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		rate, burst, _ := strings.Cut(value, "/")
		r, err1 := strconv.ParseUint(rate, 10, 32)
		b, err2 := strconv.ParseUint(burst, 10, 32)
		if of[name] == nil || err1 != nil || err2 != nil {
			return fmt.Errorf("--packet-limits %q: write it as syn=500/2000; the names are syn, udp, other and listener, and 0/0 is no limit", part)
		}
		*of[name] = packet.Rate{PerSecond: uint32(r), Burst: uint32(b)}
	}
	return nil
}

// packetFilter makes the packet filter of the flags.
func (in *instance) packetFilter() (*packet.Filter, error) {
	c, err := in.flags.packet.config()
	if err != nil {
		return nil, err
	}
	c.Logger, c.Metrics, c.Served, c.Waits = in.logger, in.metrics, in.servedPorts, in.inherited != nil
	f, err := packet.New(c)
	if err != nil {
		return nil, fmt.Errorf("--packet: %w", err)
	}
	return f, nil
}

// servedPorts are the ports of what is listened on now, in order.
func (in *instance) servedPorts() (out []uint16) {
	for _, a := range in.edge.Addresses() {
		_, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			out = append(out, uint16(n))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// prefixOf reads an address or a prefix.
func prefixOf(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no address and no prefix such as 192.0.2.0/24", s)
	}
	return p, nil
}

func packetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "packet",
		Short: "The packet filter: what it drops, and its rules",
		Long: "Packet asks the edge that runs on this machine about its packet filter, which relais serve --packet\n" +
			"starts, and writes rules by hand. Every rule ends by itself.",
		Example: "  relais packet status\n  relais packet list",
	}
	cmd.AddCommand(packetStatus(), packetList(),
		packetRule(packet.Deny, "Drop what comes from an address or prefix, for a while"),
		packetRule(packet.Allow, "Pass what comes from an address or prefix, for a while, past wider denials"),
		packetRule(packet.Remove, "End the rule of an address or prefix"))
	return cmd
}

func packetStatus() *cobra.Command {
	var output, data string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "What filters, what it has dropped and why, and what is unprotected",
		Example: "  relais packet status\n  relais packet status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s packet.Status
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/packet/status", &s); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, s, func(w io.Writer) { printPacketStatus(w, &s) })
		},
	}
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func printPacketStatus(w io.Writer, s *packet.Status) {
	p := paintFor(w)
	fmt.Fprint(w, "packet filter ", p.bold(string(s.Mode)))
	if s.How != "" {
		fmt.Fprint(w, " (", s.How, ")")
	}
	if len(s.Interfaces) > 0 {
		fmt.Fprint(w, " on ", strings.Join(s.Interfaces, ", "))
	}
	fmt.Fprintf(w, ", %s", plural(s.Rules, "rule"))
	if s.Cookies != "" {
		fmt.Fprint(w, ", SYN cookies ", s.Cookies)
	}
	fmt.Fprintln(w)
	for _, u := range s.Unprotected {
		fmt.Fprintln(w, p.red("unprotected: ")+u)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, c := range s.Counts {
		if c.Packets == 0 {
			continue
		}
		verdict := "passed"
		if c.Dropped {
			verdict = "dropped"
		}
		fmt.Fprintf(t, "  %s\t%s\t%d packets\t%d bytes\n", c.Reason, verdict, c.Packets, c.Bytes)
	}
	_ = t.Flush()
}

func packetList() *cobra.Command {
	var output, data string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "The rules that are in force, with their ends and reasons",
		Example: "  relais packet list\n  relais packet list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []packet.Rule
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/packet/rules", &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "no rule is in force")
				}
				t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
				for _, r := range list {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s left\t%d packets\n", r.Prefix, r.Action, r.Reason, time.Until(r.Until).Round(time.Second), r.Packets)
				}
				_ = t.Flush()
			})
		},
	}
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func packetRule(action packet.Action, short string) *cobra.Command {
	var life time.Duration
	var reason, data string
	cmd := &cobra.Command{
		Use:     string(action) + " PREFIX",
		Short:   short,
		Example: "  relais packet " + string(action) + " 192.0.2.0/24",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := prefixOf(args[0])
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			q := packet.Asked{Action: action, Prefix: p}
			if action != packet.Remove {
				if life <= 0 {
					return &exitError{code: exitUsage, err: errors.New("--for: give how long, as 10m")}
				}
				q.For, q.Reason = life.String(), reason
			}
			var done packet.Asked
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/packet/rules", q, &done); err != nil {
				return failed(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", action, done.Prefix)
			return nil
		},
	}
	dataFlag(cmd, &data)
	if action != packet.Remove {
		cmd.Flags().DurationVar(&life, "for", 10*time.Minute, "how long; 24h at most")
		cmd.Flags().StringVar(&reason, "reason", "by-hand", "a short name, which labels a counter")
	}
	return cmd
}
