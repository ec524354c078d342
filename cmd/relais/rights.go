package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// rule is a rule of a token or role.
type rule struct {
	Verbs []string `json:"verbs"`
	Kinds []string `json:"kinds"`
}

func (r rule) String() string { return strings.Join(r.Verbs, ",") + ":" + strings.Join(r.Kinds, ",") }

// parseRules reads VERBS:KINDS, each a list with commas.
func parseRules(texts []string) ([]rule, error) {
	rules := make([]rule, 0, len(texts))
	for _, t := range texts {
		verbs, kinds, ok := strings.Cut(t, ":")
		if !ok || verbs == "" || kinds == "" {
			return nil, wrong("--rule %q: write VERBS:KINDS, such as read:* or read,write:Site,OriginPool", t)
		}
		rules = append(rules, rule{strings.Split(verbs, ","), strings.Split(kinds, ",")})
	}
	return rules, nil
}

type token struct {
	ID      string    `json:"id"`
	Title   string    `json:"title,omitempty"`
	User    string    `json:"user"`
	Scope   string    `json:"scope"`
	Project string    `json:"project,omitempty"`
	Rules   []rule    `json:"rules"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func tokenCommand() *cobra.Command {
	var title, user, scope, project, expires string
	var rules []string
	return group("token", "Tokens, by which programs ask the control plane", "Token makes, lists and ends API tokens. A token may at most what its user may, at each use.",
		"  relais token create --title ci --rule read,write:document --expires 90d\n  relais token list\n  relais token revoke ID",
		verb{
			use: "list", short: "Tokens, without what proves them", example: "  relais token list\n  relais token list -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("tokens"), func(w io.Writer, it token) {
					var may []string
					for _, r := range it.Rules {
						may = append(may, r.String())
					}
					fmt.Fprintf(w, "%s  of %s  until %s  %s  %s\n", it.ID, it.User, it.Expires.Local().Format(time.DateOnly), strings.Join(may, " "), it.Title)
				})
			},
		},
		verb{
			use: "create", short: "Make a token; its text is shown once", args: cobra.NoArgs,
			long:    "Create prints a new token, alone on its line, so that it can be put where it is needed; it is not shown again.\nRules are VERBS:KINDS; verbs are read, write, delete, revert and purge; the kind document stands for all documents.",
			example: "  relais token create --title ci --rule read,write:document --expires 90d\n  relais token create --user deploy --project blue --rule '*:Site' --expires 2027-01-31",
			flags: func(fl *pflag.FlagSet) {
				fl.StringVar(&title, "title", "", "what it is for")
				fl.StringVar(&user, "user", "", "a service of the organization; absent: oneself")
				fl.StringVar(&scope, "scope", "", "organization, with those below it; absent: that of --organization")
				fl.StringVar(&project, "project", "", "this project alone")
				fl.StringArrayVar(&rules, "rule", nil, "what it may, as VERBS:KINDS; may be repeated")
				fl.StringVar(&expires, "expires", "90d", "when it ends: 90d, 12h, a day or a time; within 400 days")
			},
			run: func(q *question, _ []string) error {
				if len(rules) == 0 {
					return wrong("a token without --rule may nothing; write --rule read:* or another")
				}
				parsed, err := parseRules(rules)
				if err != nil {
					return err
				}
				end, err := parseExpiry(expires, time.Now())
				if err != nil {
					return err
				}
				var made struct {
					Token string `json:"token"`
				}
				body := map[string]any{"title": title, "user": user, "scope": scope, "project": project, "rules": parsed, "expires": end.UTC().Truncate(time.Second)}
				if err := q.do(http.MethodPost, q.path("tokens"), nil, body, &made); err != nil {
					return err
				}
				return q.show(made, func(w io.Writer) { fmt.Fprintln(w, made.Token) })
			},
		},
		verb{
			use: "revoke ID", short: "End a token, at once", example: "  relais token list\n  relais token revoke 7Hq2…", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return q.done(http.MethodDelete, q.path("tokens", args[0]), nil, deed{"token", args[0], "revoked"})
			},
		},
	)
}

// binding is who has which role.
type binding struct {
	User         string     `json:"user"`
	Organization string     `json:"organization,omitempty"`
	Role         string     `json:"role"`
	Project      string     `json:"project,omitempty"`
	Expires      *time.Time `json:"expires,omitempty"`
}

// bindVerb gives or takes a role.
func bindVerb(use, short, example, path, action string, ends bool) verb {
	var home, project, expires string
	return verb{
		use: use + " LOGIN ROLE", short: short, args: cobra.ExactArgs(2), example: example,
		flags: func(fl *pflag.FlagSet) {
			fl.StringVar(&home, "home", "", "organization where the user is at home; absent: that of --organization")
			fl.StringVar(&project, "project", "", "in this project alone")
			if ends {
				fl.StringVar(&expires, "expires", "", "when it ends: 90d, 12h, a day or a time")
			}
		},
		run: func(q *question, args []string) error {
			b := binding{User: args[0], Organization: home, Role: args[1], Project: project}
			if expires != "" {
				end, err := parseExpiry(expires, time.Now())
				if err != nil {
					return err
				}
				b.Expires = &end
			}
			return q.done(http.MethodPost, q.path("bindings")+path, b, deed{"role", args[1], action + " " + args[0]})
		},
	}
}

func roleCommand() *cobra.Command {
	return group("role", "Who may what", "Role gives and takes roles. Every organization has admin, editor, viewer and billing. A role holds in the organization\nand all below it, or in one project. Nobody gives what he does not have.",
		"  relais role bind zoe editor\n  relais role bind joe viewer --project blue\n  relais role bindings",
		verb{
			use: "list", short: "Roles that were made here", example: "  relais role list",
			run: func(q *question, _ []string) error {
				return list(q, q.path("roles"), func(w io.Writer, it struct {
					Name  string `json:"name"`
					Rules []rule `json:"rules"`
				},
				) {
					fmt.Fprintf(w, "%-20s", it.Name)
					for _, r := range it.Rules {
						fmt.Fprint(w, " ", r)
					}
					fmt.Fprintln(w)
				})
			},
		},
		verb{
			use: "bindings", short: "Who has which role", example: "  relais role bindings -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("bindings"), func(w io.Writer, it binding) {
					fmt.Fprintf(w, "%-32s %-16s", it.User+"@"+it.Organization, it.Role)
					if it.Project != "" {
						fmt.Fprintf(w, " in project %s", it.Project)
					}
					if it.Expires != nil {
						fmt.Fprintf(w, " until %s", it.Expires.Local().Format(time.DateTime))
					}
					fmt.Fprintln(w)
				})
			},
		},
		bindVerb("bind", "Give a user a role", "  relais role bind zoe editor\n  relais role bind joe viewer --project blue --expires 30d\n  relais role bind helper admin --home operator --expires 12h", "", "given to", true),
		bindVerb("unbind", "Take a role from a user", "  relais role unbind zoe editor\n  relais role unbind joe viewer --project blue", "/remove", "taken from", false),
	)
}
