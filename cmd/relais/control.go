package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/relais-edge/relais/internal/control"
)

// controlFlags are those of where a control plane keeps what it knows.
type controlFlags struct {
	data, postgres string
	fleet          *control.FleetConfig
	url            string
}

func (f *controlFlags) add(cmd *cobra.Command) {
	def := os.Getenv("RELAIS_DATA")
	if def == "" {
		def = "relais-control"
	}
	cmd.Flags().StringVar(&f.data, "data", def, "folder of the database, the vault's key and the certificate (or RELAIS_DATA)")
	cmd.Flags().StringVar(&f.postgres, "postgres", os.Getenv("RELAIS_POSTGRES"), "connection string of PostgreSQL, for several control planes; absent: SQLite in --data (or RELAIS_POSTGRES)")
}

func (f *controlFlags) open(ctx context.Context, logger *slog.Logger) (*control.Control, error) {
	return control.Open(ctx, control.Config{Data: f.data, Postgres: f.postgres, URL: f.url, Version: version, Fleet: f.fleet, Logger: logger})
}

func controlCommand() *cobra.Command {
	var f controlFlags
	var listen, cert, key string
	var hosts []string
	var fleet control.FleetConfig
	cmd := &cobra.Command{
		Use:   "control",
		Short: "The control plane: documents of many tenants, over an HTTP API",
		Long: "Control keeps documents, users and revisions, and answers the HTTP API of which /v1/openapi.json is\n" +
			"the description. Make the operator first, with relais control init. Without --tls-cert it makes a\n" +
			"certificate by itself in --data, for the names of --host.",
		Example: "  relais control init --organization acme --login root\n  relais control\n" +
			"  relais control --listen :8443 --host control.example.com --tls-cert control.pem --tls-key control.key",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if fleet.Bus != "" {
				f.fleet = &fleet
			}
			k, err := f.open(cmd.Context(), logger)
			if err != nil {
				return failed(err)
			}
			defer k.Close()
			c, path, err := control.Certificate(f.data, cert, key, hosts)
			if err != nil {
				return failed(err)
			}
			l, err := new(net.ListenConfig).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return failed(err)
			}
			return failed(k.Run(cmd.Context(), l, c, func() {
				fmt.Fprintf(cmd.OutOrStdout(), "control plane on https://%s, certificate %s\n", l.Addr(), path)
			}))
		},
	}
	f.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&listen, "listen", "127.0.0.1:8470", "address of the API")
	fl.StringVar(&f.url, "url", os.Getenv("RELAIS_URL"), "own address, such as https://control.example.com, for logins by identity providers (or RELAIS_URL)")
	fl.StringVar(&cert, "tls-cert", "", "PEM of the certificate; absent: one that is made in --data")
	fl.StringVar(&key, "tls-key", "", "PEM of its key")
	fl.StringSliceVar(&hosts, "host", []string{"localhost", "127.0.0.1", "::1"}, "names and addresses of the certificate that is made")
	fl.StringVar(&fleet.Bus, "bus", "127.0.0.1:4222", "address that PoPs connect to; empty: no PoPs")
	fl.StringSliceVar(&fleet.BusAddresses, "bus-address", nil, "host:port that PoPs are told to connect to; absent: that of --bus")
	fl.StringVar(&fleet.Enrol, "enrol", "127.0.0.1:8471", "address that machines join at")
	fl.StringSliceVar(&fleet.EnrolURLs, "enrol-url", nil, "what stands in join tokens, such as https://control.example.com:8471; absent: that of --enrol")
	fl.StringVar(&fleet.Domain, "trust-domain", "relais.internal", "name in all certificates of the fleet; it cannot be changed later")
	cmd.AddCommand(controlInitCommand())
	return cmd
}

func controlInitCommand() *cobra.Command {
	var f controlFlags
	var org, login string
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Make the operator and its first user, in an empty database",
		Long:    "Init makes the organization of the operator and a user who may do everything. The password is asked\nfor, or read from standard input where that is no terminal.",
		Example: "  relais control init --organization acme --login root\n  relais control init --organization acme --login root < password.txt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := f.open(cmd.Context(), nil)
			if err != nil {
				return failed(err)
			}
			defer k.Close()
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return failed(err)
			}
			who, err := k.Tenant.Setup(cmd.Context(), org, login, password)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "made %s, who may do everything\n", who)
			}
			return failed(err)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&org, "organization", "operator", "name of the operator's organization")
	cmd.Flags().StringVar(&login, "login", "root", "login of its first user")
	return cmd
}

// readPassword asks for a new password twice, or reads a line.
func readPassword(in io.Reader, errs io.Writer) (string, error) {
	first, err := readSecret(in, errs, "Password: ")
	if file, is := in.(*os.File); err != nil || !is || !term.IsTerminal(int(file.Fd())) {
		return first, err
	}
	again, err := readSecret(in, errs, "Once more: ")
	if err == nil && first != again {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

// readSecret asks for something that is not shown, or reads a line.
func readSecret(in io.Reader, errs io.Writer, ask string) (string, error) {
	file, is := in.(*os.File)
	if !is || !term.IsTerminal(int(file.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	fmt.Fprint(errs, ask)
	b, err := term.ReadPassword(int(file.Fd()))
	fmt.Fprintln(errs)
	return string(b), err
}
