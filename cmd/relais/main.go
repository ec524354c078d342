// Relais is the one binary of the edge platform; each role is a command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitFailed = 1 // what was asked for went wrong
	exitUsage  = 2 // the question was wrong: flags, arguments, documents
	exitFull   = 3 // forecast: somebody would be refused
	exitFound  = 3 // a test ran, and found what it looked for
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	cmd := root(os.Stdout, os.Stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		var e *exitError
		if !errors.As(err, &e) {
			e = &exitError{code: exitUsage, err: err}
		}
		if !e.said {
			fmt.Fprintln(os.Stderr, "relais:", e.err)
		}
		os.Exit(e.code)
	}
}

// exitError is an error with an exit code.
type exitError struct {
	code int
	err  error
	said bool // the user has been told already, with all details
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

func failed(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitFailed, err: err}
}

func root(out, errs io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relais",
		Short: "An edge between a site and its visitors: cache, overflow, protection",
		Long: "Relais stands between a site and its visitors: it caches, balances and overflows to other\n" +
			"clusters, and protects, without losing an order.",
		Example: "  relais up                              a demo shop behind the edge, on this machine\n" +
			"  relais serve -f examples/proxy.yaml    one edge from documents\n" +
			"  relais explain 3r5q…                   what happened to one request",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.AddCommand(serveCommand(), upgradeCommand(), validateCommand(), explainCommand(), poolsCommand(), forecastCommand(), replayCommand(), recordCommand(), cacheCommand(), wafCommand(), apiCommand(), shieldCommand(), unblockCommand(), rangesCommand(), packetCommand(), controlCommand(), popCommand(), rolloutCommand(), purgeCommand(), upCommand(), visitorsCommand(), shopCommand(), usageCommand(), versionCommand())
	cmd.AddCommand(append(applyCommands(), loginCommand(), logoutCommand(), whoamiCommand(), importCommand(), watchCommand(), orgCommand(), userCommand(), tokenCommand(), roleCommand(), claimCommand(), planCommand(), auditCommand())...)
	return cmd
}

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Which build this is",
		Example: "  relais version\n  relais version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok && version == "dev" && info.Main.Version != "" {
				v["version"] = info.Main.Version
			}
			return show(cmd.OutOrStdout(), output, v, func(w io.Writer) {
				fmt.Fprintf(w, "relais %s (%s, %s)\n", v["version"], v["go"], v["platform"])
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
