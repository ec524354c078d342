// Package regression reads the requests of the Core Rule Set's own regression tests, which come
// with the rules: attacks that a rule must find and harmless requests that it must not.
package regression

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	crstests "github.com/corazawaf/coraza-coreruleset/v4/tests"
	"go.yaml.in/yaml/v4"
)

// Field is a field of the head.
type Field struct{ Name, Value string }

// Case is one request of a test.
type Case struct {
	// Name is the rule's id and the test's, such as 942100-3.
	Name string
	// Rule is the id of the rule that is tested.
	Rule int
	// Expect are the rules that the test wants to match, NoExpect those that must not.
	Expect, NoExpect []int

	Method, Target, Proto string
	Fields                []Field
	Body                  string
}

type input struct {
	Method         string            `yaml:"method"`
	URI            string            `yaml:"uri"`
	Version        string            `yaml:"version"`
	Data           string            `yaml:"data"`
	Headers        map[string]string `yaml:"headers"`
	OrderedHeaders []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"ordered_headers"`
	Encoded string `yaml:"encoded_request"`
	Auto    *bool  `yaml:"autocomplete_headers"`
}

type file struct {
	RuleID int `yaml:"rule_id"`
	Tests  []struct {
		ID     int `yaml:"test_id"`
		Stages []struct {
			Input  input `yaml:"input"`
			Output struct {
				Log struct {
					Expect   []int `yaml:"expect_ids"`
					NoExpect []int `yaml:"no_expect_ids"`
				} `yaml:"log"`
			} `yaml:"output"`
		} `yaml:"stages"`
	} `yaml:"tests"`
}

// Cases reads all requests as they are written, without a server between that would refuse or
// mend some. It takes about a second.
func Cases() (out []Case, err error) {
	err = fs.WalkDir(crstests.FS, ".", func(p string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".yaml") {
			return err
		}
		b, err := fs.ReadFile(crstests.FS, p)
		if err != nil {
			return err
		}
		var f file
		if err := yaml.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, x := range f.Tests {
			for i := range x.Stages {
				st := &x.Stages[i]
				c, err := st.Input.request()
				if err != nil {
					return fmt.Errorf("%s: test %d: %w", p, x.ID, err)
				}
				c.Name, c.Rule = fmt.Sprintf("%d-%d", f.RuleID, x.ID), f.RuleID
				c.Expect, c.NoExpect = st.Output.Log.Expect, st.Output.Log.NoExpect
				out = append(out, c)
			}
		}
		return nil
	})
	return out, err
}

func (in *input) request() (c Case, err error) {
	if in.Encoded != "" {
		raw, err := base64.StdEncoding.DecodeString(in.Encoded)
		return Parse(string(raw)), err
	}
	or := func(a, b string) string {
		if a == "" {
			return b
		}
		return a
	}
	c = Case{Method: or(in.Method, "GET"), Target: or(in.URI, "/"), Proto: or(in.Version, "HTTP/1.1"), Body: in.Data}
	has := map[string]bool{}
	add := func(k, v string) {
		has[strings.ToLower(k)] = true
		c.Fields = append(c.Fields, Field{k, v})
	}
	for _, k := range slices.Sorted(maps.Keys(in.Headers)) {
		add(k, in.Headers[k])
	}
	for _, h := range in.OrderedHeaders {
		add(h.Name, h.Value)
	}
	if len(in.Data) > 0 && (in.Auto == nil || *in.Auto) {
		if !has["content-type"] {
			add("Content-Type", "application/x-www-form-urlencoded")
		}
		if !has["content-length"] {
			add("Content-Length", strconv.Itoa(len(in.Data)))
		}
	}
	return c, nil
}

// Parse takes a request in wire form apart without judging it.
func Parse(raw string) (c Case) {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	p := strings.Split(lines[0], " ")
	c.Method, c.Proto = p[0], p[len(p)-1]
	if len(p) > 2 {
		c.Target = strings.Join(p[1:len(p)-1], " ")
	}
	for _, l := range lines[1:] {
		if k, v, ok := strings.Cut(l, ":"); ok {
			c.Fields = append(c.Fields, Field{k, strings.TrimSpace(v)})
		}
	}
	c.Body = body
	return c
}
