package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/record"
)

// recordFlags say which requests an edge keeps for replays.
type recordFlags struct {
	share, memory, organization, body, file, clients string
}

func (f *recordFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.share, "record", "off", "share of requests that is kept, redacted, for relais replay, such as 1%, besides those that were refused, failed or spilled; or off")
	fl.StringVar(&f.memory, "record-memory", "64MiB", "memory for requests that are kept")
	fl.StringVar(&f.organization, "record-organization", "16MiB", "memory for requests that are kept of one organization")
	fl.StringVar(&f.body, "record-body", "16KiB", "how much of a request's body is kept, at most")
	fl.StringVar(&f.file, "record-file", "off", "size of the file in the data folder over which they outlive the process, such as 256MiB, or off")
	fl.StringVar(&f.clients, "record-clients", "hashed", "what is kept of addresses: hashed (network, and a hash of the rest), truncated (network) or full")
}

// maxOrgRequests is how many requests are kept of one organization.
const maxOrgRequests = 100_000

// config reads the flags; nil keeps nothing.
func (f *recordFlags) config(data string, logger *slog.Logger) (*record.KeeperConfig, error) {
	if f.share == "off" || f.share == "" {
		f.share = "off"
		return nil, nil
	}
	share, err := parseShare(f.share)
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	c := &record.KeeperConfig{Share: share, OrgCount: maxOrgRequests, Dir: filepath.Join(data, "record"), Clients: record.Clients(f.clients), Logger: logger}
	var memory, organization, body, file v1.Size
	for _, s := range []struct {
		flag, text string
		to         *v1.Size
	}{{"record-memory", f.memory, &memory}, {"record-organization", f.organization, &organization}, {"record-body", f.body, &body}, {"record-file", f.file, &file}} {
		if s.text == "off" {
			continue
		}
		if err := s.to.UnmarshalText([]byte(s.text)); err != nil {
			return nil, fmt.Errorf("--%s: %w", s.flag, err)
		}
	}
	switch {
	case body > 1<<20:
		return nil, errors.New("--record-body: give at most 1MiB")
	case memory < 64<<10 || organization < 64<<10:
		return nil, errors.New("--record-memory, --record-organization: give at least 64KiB")
	case file != 0 && file < 64<<10:
		return nil, errors.New("--record-file: give at least 64KiB, or off")
	case c.Clients != record.ClientsHashed && c.Clients != record.ClientsTruncated && c.Clients != record.ClientsFull:
		return nil, fmt.Errorf("--record-clients %s: give hashed, truncated or full", f.clients)
	}
	c.Bytes, c.OrgBytes, c.BodyBytes, c.FileBytes = int64(memory), int64(organization), int(body), int64(file)
	return c, nil
}

// parseShare reads 1% or 0.01.
func parseShare(s string) (float64, error) {
	text, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if percent {
		v /= 100
	}
	if err != nil || v < 0 || v > 1 {
		return 0, fmt.Errorf("%s is no share; give one such as 1%%, from 0%% to 100%%", s)
	}
	return v, nil
}

func recordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "record",
		Short:   "The requests that an edge keeps for replays",
		Long:    "Record gives the requests that the edge that runs on this machine has kept (serve --record).",
		Example: "  relais record export > recorded.ndjson",
	}
	cmd.AddCommand(recordExportCommand())
	return cmd
}

func recordExportCommand() *cobra.Command {
	var data, organization, out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the requests that are kept, one JSON object a line",
		Long: "Export writes the requests that the edge has kept, the oldest first, for relais replay. Cookies,\n" +
			"credentials and what may be somebody's were hidden before they were kept: see docs/replay.md.",
		Example: "  relais record export > recorded.ndjson\n  relais record export --organization acme --to acme.ndjson",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			if out != "" {
				f, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
				if err != nil {
					return failed(err)
				}
				defer f.Close()
				w = f
			}
			return failed(fetchRecord(cmd, data, organization, w))
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&organization, "organization", "", "requests of this organization only")
	cmd.Flags().StringVar(&out, "to", "", "file to write, in place of standard output")
	return cmd
}

// fetchRecord has the running edge write its record.
func fetchRecord(cmd *cobra.Command, data, organization string, w io.Writer) error {
	return admin.NewClient(filepath.Join(data, adminSocket)).Copy(cmd.Context(), "/record?organization="+url.QueryEscape(organization), w)
}
