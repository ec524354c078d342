package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/api/client"
)

// remote is which control plane is asked, and as whom. What is not given is that of the last login.
type remote struct {
	API          string `json:"api"`
	Organization string `json:"organization"`
	Token        string `json:"token"`
	CA           string `json:"ca,omitempty"` // PEM
	caFile       string
}

func contextFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "relais", "context.json"), err
}

func (r *remote) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&r.API, "api", os.Getenv("RELAIS_API"), "address of the control plane; absent: that of relais login (or RELAIS_API)")
	fl.StringVar(&r.Organization, "organization", os.Getenv("RELAIS_ORGANIZATION"), "whose documents; absent: that of relais login (or RELAIS_ORGANIZATION)")
	fl.StringVar(&r.caFile, "ca", os.Getenv("RELAIS_CA"), "PEM of the certificates to trust in place of the system's (or RELAIS_CA)")
}

// client fills in what was not given, and makes a client. The token is in RELAIS_TOKEN or of the last login, and no flag:
// flags are seen by everybody on the machine.
func (r *remote) client() (*client.Client, error) {
	r.Token = os.Getenv("RELAIS_TOKEN")
	if file, err := contextFile(); err == nil {
		var last remote
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &last) == nil {
			if r.API == "" {
				r.API, r.CA = last.API, last.CA
			}
			if r.Token == "" && r.API == last.API {
				r.Token, r.CA = last.Token, last.CA
			}
			if r.Organization == "" {
				r.Organization = last.Organization
			}
		}
	}
	if r.API == "" {
		return nil, &exitError{code: exitUsage, err: errors.New("no control plane is named; log in with relais login --api https://…, or set RELAIS_API and RELAIS_TOKEN")}
	}
	if r.caFile != "" {
		b, err := os.ReadFile(r.caFile)
		if err != nil {
			return nil, failed(err)
		}
		r.CA = string(b)
	}
	c, err := client.New(r.API, r.Token, []byte(r.CA))
	return c, failed(err)
}

// told prints a problem of the control plane with all it lists, and gives the exit code: 2 where the question was wrong.
func told(cmd *cobra.Command, err error) error {
	var p *client.Problem
	if !errors.As(err, &p) {
		return failed(err)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "relais:", p)
	for _, x := range p.Problems {
		where := strings.TrimSpace(x.Document + " " + x.Field)
		fmt.Fprintf(cmd.ErrOrStderr(), "  %s: %s", where, x.What)
		if x.Fix != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "; %s", x.Fix)
		}
		fmt.Fprintln(cmd.ErrOrStderr())
	}
	code := exitFailed
	if p.Status == http.StatusUnprocessableEntity || p.Status == http.StatusBadRequest {
		code = exitUsage
	}
	return &exitError{code: code, err: err, said: true}
}

func loginCommand() *cobra.Command {
	var r remote
	var login, code string
	cmd := &cobra.Command{
		Use:   "login --api ADDRESS --organization ORGANIZATION --login NAME",
		Short: "Log in to a control plane",
		Long: "Login asks for the password, or reads it from standard input where that is no terminal, and keeps what the\n" +
			"control plane gives in the user's configuration folder, for the commands that follow.",
		Example: "  relais login --api https://127.0.0.1:8470 --ca relais-control/control.pem --organization acme --login root",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			c.Token = ""
			password, err := readSecret(cmd.InOrStdin(), cmd.ErrOrStderr(), "Password: ")
			if err != nil {
				return failed(err)
			}
			body, err := json.Marshal(map[string]string{"organization": r.Organization, "login": login, "password": password, "code": code})
			if err != nil {
				return failed(err)
			}
			var got struct {
				Token   string    `json:"token"`
				Expires time.Time `json:"expires"`
			}
			if _, err := c.Do(cmd.Context(), client.Request{Method: "POST", Path: client.Path("login"), Body: body}, &got); err != nil {
				return told(cmd, err)
			}
			r.Token = got.Token
			if err := r.keep(); err != nil {
				return failed(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "logged in until %s\n", got.Expires.Local().Format(time.DateTime))
			return nil
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&login, "login", "", "name of the user")
	cmd.Flags().StringVar(&code, "code", "", "code of the second factor")
	_ = cmd.MarkFlagRequired("login")
	return cmd
}

// keep writes the context for its owner alone.
func (r *remote) keep() error {
	file, err := contextFile()
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// ask asks and prints what comes, as text makes it for people.
func (r *remote) ask(cmd *cobra.Command, output string, q client.Request, into any, text func(io.Writer)) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	q.Path = strings.ReplaceAll(q.Path, url.PathEscape(orgMark), url.PathEscape(r.Organization))
	if _, err := c.Do(cmd.Context(), q, into); err != nil {
		return told(cmd, err)
	}
	return show(cmd.OutOrStdout(), output, into, text)
}

// orgMark stands for the organization in a path before it is known.
const orgMark = "{org}"

func inOrg(elements ...string) string {
	return client.Path(append([]string{"organizations", orgMark}, elements...)...)
}
