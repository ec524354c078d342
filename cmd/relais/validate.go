package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge/listen"
	"github.com/relais-edge/relais/internal/edge/waf"
	"github.com/relais-edge/relais/internal/pop"
)

func validateCommand() *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "validate -f PATH...",
		Short: "Check documents and serve nothing",
		Long: "Validate reads documents as serve does and prints every problem with file, line, field, why, and\n" +
			"how to mend it. It exits with 0 when all is well and with 2 when it is not.",
		Example: "  relais validate -f examples\n  relais validate -o json -f shop.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, problems := pop.Compile(files, os.LookupEnv)
			if b != nil {
				for key, err := range listen.CheckInline(b.Certificates) {
					problems = append(problems, document.Problem{
						File: strings.Join(files, ", "), Document: "Certificate " + string(key), Field: "spec.inline", What: "is not a certificate with its key", Fix: err.Error(),
					})
				}
			}
			if b != nil && len(problems) == 0 && waf.Excludes(b) {
				list, err := checkExclusions(b, strings.Join(files, ", "))
				if err != nil {
					return failed(err)
				}
				problems = append(problems, list...)
			}
			result := struct {
				Valid    bool               `json:"valid"`
				Sites    int                `json:"sites"`
				Services int                `json:"services"`
				Problems []document.Problem `json:"problems,omitempty"`
			}{Valid: len(problems) == 0, Problems: problems}
			if b != nil {
				result.Sites, result.Services = len(b.Sites), len(b.Services)
			}
			err := show(cmd.OutOrStdout(), output, result, func(w io.Writer) {
				printProblems(w, problems)
				if result.Valid {
					fmt.Fprintf(w, "valid: %s\n", counted(result.Sites, result.Services))
				}
			})
			if err == nil && !result.Valid {
				err = &exitError{code: exitUsage, err: errors.New("the documents are wrong"), said: true}
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	outputFlag(cmd, &output)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}
