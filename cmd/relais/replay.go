package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/record"
	"github.com/relais-edge/relais/internal/pop"
	"github.com/relais-edge/relais/internal/replay"
)

// replayFlags are what the command is asked.
type replayFlags struct {
	before, after, allow []string
	output, data, zone   string
	memory               string
	seed                 uint64
	number               int
	har                  bool
}

func replayCommand() *cobra.Command {
	f := &replayFlags{}
	cmd := &cobra.Command{
		Use:   "replay [-f OLD]... --against NEW... [RECORD]",
		Short: "What two revisions of documents do differently with recorded requests",
		Long: "Replay serves recorded requests in process, in virtual time and with origins that answer what was\n" +
			"recorded, once with the old documents and once with the new ones: the whole way of a request, as an\n" +
			"edge goes it. It says which requests would be routed, refused, limited, cached, balanced, rewritten or\n" +
			"answered differently. Nothing is opened, looked up or sent. The same input gives the same output.\n\n" +
			"Without -f the old documents are those in service at the edge on this machine (--data). RECORD is what\n" +
			"relais record export wrote, or - for standard input; without it that edge is asked for its record.\n" +
			"With --har it is an HTTP Archive of a browser.\n\n" +
			"--allow names a kind of difference that is meant, or how much of it: waf, cache=10, tier=0.5%. The kinds\n" +
			"are " + kindNames() + ".\n" +
			"It exits with 0 when nothing else differs, with 1 when something does or went wrong, and with 2 when the\n" +
			"question or the documents are wrong.",
		Example: "  relais record export > recorded.ndjson\n" +
			"  relais replay -f old.yaml --against new.yaml recorded.ndjson\n" +
			"  relais replay --against new.yaml --allow waf --allow cache=1%\n" +
			"  relais replay -f old --against new -o json recorded.ndjson",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.before, "file", "f", nil, "old documents, file or folder; may be repeated; those in service without it")
	fl.StringArrayVar(&f.after, "against", nil, "new documents, file or folder; may be repeated")
	fl.StringArrayVar(&f.allow, "allow", nil, "kind of difference that is meant, or how many requests of it: KIND, KIND=10 or KIND=1%; may be repeated")
	fl.Uint64Var(&f.seed, "seed", 1, "what all chances follow from")
	fl.StringVar(&f.memory, "cache-memory", "256MiB", "memory for stored answers, of each revision")
	fl.StringVar(&f.zone, "zone", os.Getenv("RELAIS_ZONE"), "zone of the edge, as for serve")
	fl.IntVar(&f.number, "edge-number", 0, "number of the edge, as for serve")
	fl.BoolVar(&f.har, "har", false, "RECORD is an HTTP Archive (HAR)")
	outputFlag(cmd, &f.output)
	dataFlag(cmd, &f.data)
	_ = cmd.MarkFlagRequired("against")
	return cmd
}

func kindNames() string {
	names := make([]string, 0, len(replay.Kinds))
	for _, k := range replay.Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// maxReplayed bounds the requests of one replay.
const maxReplayed = 1_000_000

func (f *replayFlags) run(cmd *cobra.Command, args []string) error {
	if f.output != "text" && f.output != "json" {
		return usage(fmt.Errorf("-o %s: the output is text or json", f.output))
	}
	allow, err := parseAllow(f.allow)
	if err != nil {
		return usage(err)
	}
	var memory v1.Size
	if err := memory.UnmarshalText([]byte(f.memory)); err != nil {
		return usage(fmt.Errorf("--cache-memory: %w", err))
	}
	q := &replay.Question{Seed: f.seed, CacheBytes: int64(memory), Zone: f.zone, Number: uint64(max(0, f.number))}
	if q.After, err = compileFor(cmd, f.after); err != nil {
		return err
	}
	if len(f.before) > 0 {
		q.Before, err = compileFor(cmd, f.before)
	} else {
		q.Before, err = inService(cmd.Context(), f.data)
	}
	if err != nil {
		return err
	}
	var bad []error
	if q.Requests, bad, err = f.read(cmd, args); err != nil {
		return failed(err)
	}
	say := progress(cmd.ErrOrStderr())
	q.Progress = func(share float64) { say("replaying, %.0f %%", 100*share) }
	s, err := replay.Run(cmd.Context(), q)
	say("")
	if err != nil {
		return failed(err)
	}
	for _, e := range bad {
		s.Problems = append(s.Problems, e.Error())
	}
	s.Unreadable += len(bad)
	over := allow.over(s)
	result := struct {
		*replay.Summary
		Over []string `json:"over"`
	}{s, over}
	if err := show(cmd.OutOrStdout(), f.output, result, func(w io.Writer) { printReplay(w, s, over) }); err != nil {
		return err
	}
	if len(over) > 0 {
		return &exitError{code: exitFailed, err: errors.New(strings.Join(over, "; ")), said: true}
	}
	return nil
}

// compileFor compiles documents, and prints what is wrong with them.
func compileFor(cmd *cobra.Command, files []string) (*bundle.Bundle, error) {
	b, problems := pop.Compile(files, os.LookupEnv)
	if len(problems) > 0 {
		printProblems(cmd.ErrOrStderr(), problems)
		return nil, &exitError{code: exitUsage, err: fmt.Errorf("%s: the documents are wrong", strings.Join(files, ", ")), said: true}
	}
	return b, nil
}

// inService asks the running edge what it serves.
func inService(ctx context.Context, data string) (*bundle.Bundle, error) {
	var b *bundle.Bundle
	if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(ctx, "/bundle", &b); err != nil {
		return nil, failed(fmt.Errorf("%w; or name the old documents with -f", err))
	}
	if b == nil {
		return nil, failed(errors.New("the edge has nothing in service; name the old documents with -f"))
	}
	return b, nil
}

// read reads the record.
func (f *replayFlags) read(cmd *cobra.Command, args []string) ([]*record.Request, []error, error) {
	var in io.Reader
	switch {
	case len(args) == 0:
		var b bytes.Buffer
		if err := fetchRecord(cmd, f.data, "", &b); err != nil {
			return nil, nil, fmt.Errorf("%w; or name a record", err)
		}
		in = &b
	case args[0] == "-":
		in = cmd.InOrStdin()
	default:
		file, err := os.Open(args[0])
		if err != nil {
			return nil, nil, err
		}
		defer file.Close()
		in = file
	}
	if f.har {
		list, err := record.ReadHAR(in)
		return list, nil, err
	}
	return replay.Read(in, maxReplayed)
}

// allowance is how much of each kind may differ.
type allowance map[replay.Kind]allowed

type allowed struct {
	count int
	share float64
	text  string
}

func parseAllow(list []string) (allowance, error) {
	a := allowance{}
	for _, one := range list {
		name, much, some := strings.Cut(one, "=")
		k := replay.Kind(name)
		if !slices.Contains(replay.Kinds[:], k) {
			return nil, fmt.Errorf("--allow %s: there is no such kind; the kinds are %s", one, kindNames())
		}
		v := allowed{share: 1, text: one}
		if some {
			v.share = 0
			n, err := strconv.Atoi(much)
			if err == nil && n >= 0 {
				v.count = n
			} else if v.share, err = parseShare(much); err != nil || !strings.HasSuffix(much, "%") {
				return nil, fmt.Errorf("--allow %s: give a number of requests, or a share such as 1%%", one)
			}
		}
		a[k] = v
	}
	return a, nil
}

// over says what differs that is not allowed.
func (a allowance) over(s *replay.Summary) []string {
	out := []string{}
	for _, k := range s.Kinds {
		v := a[k.Kind]
		if k.Count > v.count && k.Share > v.share {
			what := plural(k.Count, "request") + " differ in " + string(k.Kind)
			if k.Count == 1 {
				what = "1 request differs in " + string(k.Kind)
			}
			if v.text != "" {
				what += ", more than --allow " + v.text
			}
			out = append(out, what)
		}
	}
	return out
}

func printReplay(w io.Writer, s *replay.Summary, over []string) {
	p := paintFor(w)
	fmt.Fprintf(w, "%s of %s to %s: %s\n", plural(s.Requests, "request"), s.From.Format("2006-01-02 15:04:05"), s.To.Format("2006-01-02 15:04:05 MST"),
		p.bold(plural(s.Different, "different answer or way")))
	if len(s.Kinds) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "KIND\tREQUESTS\tSHARE\tCHANGES")
		for _, k := range s.Kinds {
			fmt.Fprintf(t, "%s\t%d\t%.2f %%\t%d\n", k.Kind, k.Count, 100*k.Share, len(k.Changes))
		}
		_ = t.Flush()
	}
	for _, k := range s.Kinds {
		fmt.Fprintf(w, "\n%s\n", p.bold(string(k.Kind)))
		for i, g := range k.Changes {
			if i == printedChanges {
				fmt.Fprintf(w, "  and %s (-o json has them)\n", plural(len(k.Changes)-i, "more change"))
				break
			}
			fmt.Fprintf(w, "  %6d  %s → %s\n", g.Count, g.Before, g.After)
			for _, e := range g.Examples {
				fmt.Fprintf(w, "          %s  %s\n", p.dim(e.ID), e.Request)
				if e.Detail != "" {
					fmt.Fprintf(w, "          %s\n", e.Detail)
				}
			}
		}
		if k.Others > 0 {
			fmt.Fprintf(w, "  %6d  of other changes\n", k.Others)
		}
	}
	printCaveats(w, s)
	if len(over) == 0 {
		fmt.Fprintln(w, p.green("\nnothing differs that is not allowed"))
		return
	}
	fmt.Fprintln(w, p.red("\n"+strings.Join(over, "\n")))
}

// printedChanges is how many changes of a kind are printed.
const printedChanges = 10

// printCaveats says what a replay cannot know.
func printCaveats(w io.Writer, s *replay.Summary) {
	fmt.Fprintln(w)
	if s.Unreadable > 0 {
		fmt.Fprintf(w, "%s left out; the first: %s\n", plural(s.Unreadable, "request"), s.Problems[0])
	}
	if s.Assumed > 0 {
		fmt.Fprintf(w, "%s asked an origin of which no answer was recorded: 200, not to be stored, is assumed\n", plural(s.Assumed, "request"))
	}
	if s.Cut > 0 {
		fmt.Fprintf(w, "%s had a body that was not kept whole\n", plural(s.Cut, "request"))
	}
	d := s.Recorded
	var parts []string
	for _, c := range []struct {
		name string
		n    int
	}{{"site", d.Site}, {"route", d.Route}, {"refusal", d.Blocked}, {"cache", d.Cache}, {"tier", d.Tier}, {"status", d.Status}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", c.name, c.n))
		}
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "the old documents in this replay differ from what was recorded in: %s\n", strings.Join(parts, ", "))
	}
}
