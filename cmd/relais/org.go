package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/relais-edge/relais/api/client"
)

func orgCommand() *cobra.Command {
	var title string
	var yes bool
	type organization struct {
		Name  string   `json:"name"`
		Title string   `json:"title,omitempty"`
		Path  []string `json:"path"`
		Plan  *struct {
			Organization string `json:"organization"`
			Name         string `json:"name"`
		} `json:"plan,omitempty"`
	}
	return group("org", "Organizations: the operator, resellers, sellers", "Org shows and changes the tree of organizations. Who stands above manages those below.",
		"  relais org list\n  relais org create shop --title 'The shop'\n  relais org show shop",
		verb{
			use: "list", short: "The organizations right below", example: "  relais org list\n  relais org list --organization east -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("children"), func(w io.Writer, it struct {
					Name string `json:"name"`
				},
				) {
					fmt.Fprintln(w, it.Name)
				})
			},
		},
		verb{
			use: "show [NAME]", short: "An organization, and its place in the tree", example: "  relais org show\n  relais org show shop -o json", args: cobra.MaximumNArgs(1),
			run: func(q *question, args []string) error {
				path := q.path()
				if len(args) == 1 {
					path = client.Path("organizations", args[0])
				}
				var o organization
				if err := q.do(http.MethodGet, path, nil, nil, &o); err != nil {
					return err
				}
				return q.show(o, func(w io.Writer) {
					fmt.Fprintf(w, "%s  %s\n", paintFor(w).bold(o.Name), o.Title)
					fmt.Fprintf(w, "place  %s\n", strings.Join(o.Path, " > "))
					if o.Plan != nil {
						fmt.Fprintf(w, "plan   %s of %s\n", o.Plan.Name, o.Plan.Organization)
					}
				})
			},
		},
		verb{
			use: "create NAME", short: "Make an organization below", long: "Create makes an organization below that of --organization. Its name is never given to another, not even once it is deleted.",
			example: "  relais org create shop --title 'The shop'", args: cobra.ExactArgs(1),
			flags: func(fl *pflag.FlagSet) { fl.StringVar(&title, "title", "", "its name for people") },
			run: func(q *question, args []string) error {
				return q.done(http.MethodPost, q.path("children"), map[string]string{"name": args[0], "title": title}, deed{"organization", args[0], "created"})
			},
		},
		verb{
			use: "delete NAME", short: "Remove an organization that is empty", long: "Delete removes an organization that has nothing any more: neither organizations below, nor projects, documents or claims. It asks first.",
			example: "  relais org delete shop\n  relais org delete shop --yes", args: cobra.ExactArgs(1),
			flags: func(fl *pflag.FlagSet) { fl.BoolVar(&yes, "yes", false, "do not ask") },
			run: func(q *question, args []string) error {
				if !yes {
					if err := confirmed(q.cmd, fmt.Sprintf("Organization %s is deleted, and its name is never given again.", args[0])); err != nil {
						return err
					}
				}
				return q.done(http.MethodDelete, client.Path("organizations", args[0]), nil, deed{"organization", args[0], "deleted"})
			},
		},
	)
}

// linkVerb gives a one-time link.
func linkVerb(use, purpose, short, long string, most int) verb {
	var hours int
	return verb{
		use: use + " LOGIN", short: short, long: long, example: "  relais user " + use + " zoe\n  relais user " + use + " zoe --hours " + fmt.Sprint(most), args: cobra.ExactArgs(1),
		flags: func(fl *pflag.FlagSet) {
			fl.IntVar(&hours, "hours", 0, fmt.Sprintf("how long the link holds; at most %d", most))
		},
		run: func(q *question, args []string) error {
			body := map[string]any{"purpose": purpose}
			if hours != 0 {
				body["hours"] = hours
			}
			var got struct {
				Link string `json:"link"`
			}
			if err := q.do(http.MethodPost, q.path("users", args[0], "links"), nil, body, &got); err != nil {
				return err
			}
			return q.show(got, func(w io.Writer) { fmt.Fprintln(w, got.Link) })
		},
	}
}

func disableVerb(use, short string, disabled bool) verb {
	return verb{
		use: use + " LOGIN", short: short, example: "  relais user " + use + " joe", args: cobra.ExactArgs(1),
		run: func(q *question, args []string) error {
			return q.done(http.MethodPut, q.path("users", args[0], "disabled"), map[string]bool{"disabled": disabled}, deed{"user", args[0], use + "d"})
		},
	}
}

func userCommand() *cobra.Command {
	var service bool
	return group("user", "Users and services of an organization", "User shows and changes who can log in. A new user may do nothing: relais role bind gives rights.",
		"  relais user list\n  relais user invite zoe\n  relais role bind zoe editor",
		verb{
			use: "list", short: "Users and services", example: "  relais user list\n  relais user list -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("users"), func(w io.Writer, it struct {
					Login        string `json:"login"`
					Service      bool   `json:"service,omitempty"`
					Disabled     bool   `json:"disabled,omitempty"`
					SecondFactor bool   `json:"secondFactor,omitempty"`
				},
				) {
					var is []string
					for _, s := range []struct {
						so   bool
						text string
					}{{it.Service, "service"}, {it.Disabled, "disabled"}, {it.SecondFactor, "second factor"}} {
						if s.so {
							is = append(is, s.text)
						}
					}
					fmt.Fprintf(w, "%-32s %s\n", it.Login, strings.Join(is, ", "))
				})
			},
		},
		verb{
			use: "create LOGIN", short: "Make a user with a password, or a service", args: cobra.ExactArgs(1),
			long:    "Create makes a user without any right. The password is asked for, or read from standard input where that is no\nterminal. A service has tokens and no password. relais user invite lets people choose their password themselves.",
			example: "  relais user create joe\n  relais user create ci --service",
			flags: func(fl *pflag.FlagSet) {
				fl.BoolVar(&service, "service", false, "a program: it has tokens and no password")
			},
			run: func(q *question, args []string) error {
				body := map[string]any{"login": args[0], "service": service}
				if !service {
					password, err := readPassword(q.cmd.InOrStdin(), q.cmd.ErrOrStderr())
					if err != nil {
						return failed(err)
					}
					body["password"] = password
				}
				return q.done(http.MethodPost, q.path("users"), body, deed{"user", args[0], "created"})
			},
		},
		verb{
			use: "delete LOGIN", short: "Remove a user with his rights, tokens and sessions", example: "  relais user delete joe", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return q.done(http.MethodDelete, q.path("users", args[0]), nil, deed{"user", args[0], "deleted"})
			},
		},
		linkVerb("invite", "invite", "A link by which somebody sets his first password", "Invite makes a user, and prints what lets him set his password, once, within 72 hours. A later one ends the former.", 168),
		linkVerb("reset", "reset", "A link by which a user sets a new password", "Reset prints what lets a user set a new password, once, within an hour. Until then the former one holds.", 24),
		disableVerb("disable", "Keep a user and his tokens out", true),
		disableVerb("enable", "Let a user in again", false),
		verb{
			use: "sessions LOGIN", short: "From where a user is logged in", example: "  relais user sessions joe", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return list(q, q.path("users", args[0], "sessions"), func(w io.Writer, it struct {
					ID       string    `json:"id"`
					Provider string    `json:"provider,omitempty"`
					Source   string    `json:"source"`
					Agent    string    `json:"agent,omitempty"`
					Created  time.Time `json:"created"`
					Used     time.Time `json:"used"`
				},
				) {
					fmt.Fprintf(w, "%s  used %s  from %s  %s\n", it.ID, it.Used.Local().Format(time.DateTime), it.Source, it.Agent)
				})
			},
		},
		verb{
			use: "logout LOGIN", short: "Log a user out everywhere, but for the session that asks", example: "  relais user logout joe", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return q.done(http.MethodDelete, q.path("users", args[0], "sessions"), nil, deed{"user", args[0], "logged out"})
			},
		},
	)
}
