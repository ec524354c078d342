package change_test

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/relais-edge/relais/internal/document"
)

// readAsServe reads documents as one edge does.
func readAsServe(texts []document.File, env func(string) (string, bool)) (*document.Set, []document.Problem) {
	return document.Read(texts, env)
}

// resend reads documents from a file and writes them as a client sends them.
func resend(texts []document.File, env func(string) (string, bool)) (out []document.File, err error) {
	dir, err := os.MkdirTemp("", "resend")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "d.yaml")
	if err := os.WriteFile(file, texts[0].Text, 0o600); err != nil {
		return nil, err
	}
	set, problems := document.LoadWritten([]string{file}, env)
	if len(problems) > 0 {
		return nil, errors.New(problems[0].String())
	}
	for _, d := range set.Written {
		b, err := document.JSON(d)
		if err != nil {
			return nil, err
		}
		out = append(out, document.File{Name: "request", Text: b})
	}
	return out, nil
}
