package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/relais-edge/relais/api/client"
)

// verb is a command that asks a control plane.
type verb struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	flags                     func(fl *pflag.FlagSet)
	run                       func(q *question, args []string) error
	anywhere                  bool // it is about no organization
}

// question is one run of a verb.
type question struct {
	cmd    *cobra.Command
	remote *remote
	client *client.Client
	output string
}

// command makes the command; what is wrong with the flags is said before anything is asked.
func (v verb) command() *cobra.Command {
	q := question{remote: &remote{}}
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Example: v.example, Args: v.args,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.output != "text" && q.output != "json" {
				return show(cmd.OutOrStdout(), q.output, nil, nil)
			}
			q.cmd = cmd
			if q.client, err = q.remote.client(); err != nil {
				return err
			}
			if q.org() == "" && !v.anywhere {
				return wrong("no organization is named; give --organization, or log in")
			}
			return v.run(&q, args)
		},
	}
	if v.args == nil {
		cmd.Args = cobra.NoArgs
	}
	q.remote.add(cmd)
	outputFlag(cmd, &q.output)
	if v.flags != nil {
		v.flags(cmd.Flags())
	}
	return cmd
}

// group is a command that is nothing but its verbs.
func group(use, short, long, example string, verbs ...verb) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example}
	for _, v := range verbs {
		cmd.AddCommand(v.command())
	}
	return cmd
}

// org is the organization that is asked about.
func (q *question) org() string { return q.remote.Organization }

func (q *question) path(elements ...string) string {
	return client.Path(append([]string{"organizations", q.org()}, elements...)...)
}

// do asks, with a body where there is one.
func (q *question) do(method, path string, query url.Values, body, into any) error {
	r := client.Request{Method: method, Path: path, Query: query}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return failed(err)
		}
		r.Body = b
	}
	if _, err := q.client.Do(q.cmd.Context(), r, into); err != nil {
		return told(q.cmd, err)
	}
	return nil
}

func (q *question) show(v any, text func(w io.Writer)) error {
	return show(q.cmd.OutOrStdout(), q.output, v, text)
}

// deed is what -o json prints of what was done and has no answer of its own.
type deed struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
}

// done asks for a change and tells that it was made.
func (q *question) done(method, path string, body any, d deed) error {
	if err := q.do(method, path, nil, body, nil); err != nil {
		return err
	}
	return q.show(d, func(w io.Writer) { fmt.Fprintf(w, "%s %s %s\n", d.Kind, paintFor(w).bold(d.Name), d.Action) })
}

// maxListed bounds what a list reads; more is read over the API, page by page.
const maxListed = 100_000

// entries is what -o json prints of a list.
type entries[T any] struct {
	Items []T `json:"items"`
}

// all reads a list to its end.
func all[T any](q *question, path string) (entries[T], error) {
	out := entries[T]{Items: []T{}}
	cursor := ""
	for {
		query := url.Values{}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}
		if err := q.do(http.MethodGet, path, query, nil, &page); err != nil {
			return out, err
		}
		out.Items = append(out.Items, page.Items...)
		if cursor = page.Next; cursor == "" {
			return out, nil
		}
		if len(out.Items) >= maxListed {
			return out, failed(fmt.Errorf("there are more than %d; read them over the API, page by page", maxListed))
		}
	}
}

// list prints a list, a line for each entry.
func list[T any](q *question, path string, line func(w io.Writer, it T)) error {
	l, err := all[T](q, path)
	if err != nil {
		return err
	}
	return q.show(l, func(w io.Writer) {
		for _, it := range l.Items {
			line(w, it)
		}
	})
}

func wrong(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// parseExpiry reads a day, a time (RFC 3339), or a time from now such as 90d or 12h.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if days, is := strings.CutSuffix(text, "d"); is {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			return now.AddDate(0, 0, n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, wrong("--expires %q: write 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z", text)
}

// confirmed asks for a yes.
func confirmed(cmd *cobra.Command, ask string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s Type yes to go on: ", ask)
	line := make([]byte, 0, 8)
	one := make([]byte, 1)
	for len(line) < cap(line) {
		if n, err := cmd.InOrStdin().Read(one); n == 0 && err != nil || n == 1 && one[0] == '\n' {
			break
		} else if n == 1 {
			line = append(line, one[0])
		}
	}
	if strings.TrimSpace(string(line)) != "yes" {
		return failed(errors.New("not confirmed, nothing was changed; --yes confirms without being asked"))
	}
	return nil
}
