package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/spf13/cobra"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/pop"
)

// poolRanges are the addresses from which a pool's origins are dialled.
type poolRanges struct {
	Pool   bundle.Key `json:"pool"`
	Ranges []string   `json:"ranges"` // empty when the system chooses
}

func rangesCommand() *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "ranges -f PATH...",
		Short: "The addresses from which origins are dialled, for their firewalls",
		Long: "Ranges reads documents as serve does and prints each source address that their pools name\n" +
			"(connection.sourceAddresses), one a line as a network, sorted, for an origin's firewall or for\n" +
			"publishing. -o json says them by pool. It exits with 1 when a pool names none, since the system\n" +
			"chooses the address there.",
		Example: "  relais ranges -f /etc/relais\n  relais ranges -o json -f shop.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, problems := pop.Compile(files, os.LookupEnv)
			if len(problems) > 0 {
				printProblems(cmd.ErrOrStderr(), problems)
				return &exitError{code: exitUsage, err: errors.New("the documents are wrong"), said: true}
			}
			list := rangesOf(b)
			var open []bundle.Key
			all := map[string]bool{}
			for _, p := range list {
				if len(p.Ranges) == 0 {
					open = append(open, p.Pool)
				}
				for _, r := range p.Ranges {
					all[r] = true
				}
			}
			err := show(cmd.OutOrStdout(), output, list, func(w io.Writer) {
				for _, r := range slices.Sorted(maps.Keys(all)) {
					fmt.Fprintln(w, r)
				}
			})
			if err == nil && len(open) > 0 {
				err = failed(fmt.Errorf("pools without connection.sourceAddresses: %v; their origins see whatever address the system chooses", open))
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	outputFlag(cmd, &output)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// rangesOf lists the pools that sites and services use.
func rangesOf(b *bundle.Bundle) []poolRanges {
	specs := map[bundle.Key]*v1.OriginPoolSpec{}
	for _, s := range b.Sites {
		org, _ := s.Key.Split()
		for name, spec := range s.Pools {
			specs[bundle.NewKey(org, name)] = spec
		}
	}
	for i := range b.Services {
		org, _ := b.Services[i].Key.Split()
		specs[bundle.NewKey(org, b.Services[i].Spec.Pool)] = b.Services[i].Pool
	}
	list := make([]poolRanges, 0, len(specs))
	for _, key := range slices.Sorted(maps.Keys(specs)) {
		p := poolRanges{Pool: key, Ranges: []string{}}
		for _, text := range specs[key].Connection.SourceAddresses {
			if a, err := netip.ParseAddr(text); err == nil { // Validate has seen to it
				p.Ranges = append(p.Ranges, netip.PrefixFrom(a, a.BitLen()).String())
			}
		}
		list = append(list, p)
	}
	return list
}
