package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	used "github.com/relais-edge/relais/internal/usage"
)

func usageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "usage",
		Short:   "What was used, and the proof of it",
		Example: "  relais usage verify receipts.ndjson --key 9Qm4…=",
	}
	cmd.AddCommand(usageVerifyCommand())
	return cmd
}

// verified is what -o json prints.
type verified struct {
	OK bool `json:"ok"`
	used.Summary
	Broken *broken `json:"broken,omitempty"`
}

type broken struct {
	Number int64  `json:"number,omitempty"` // of the receipt
	Line   int    `json:"line"`
	Why    string `json:"why"`
}

func usageVerifyCommand() *cobra.Command {
	var output string
	var keyTexts, anchorTexts []string
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Whether receipts are as the operator signed them, without asking anybody",
		Long: "Verify reads receipts, one to a line as JSON, from a file or, without one or with -, from standard input. It\n" +
			"checks that each was signed by the operator, follows the one before, and adds up, and names the first that does\n" +
			"not. Take the operator's public key from a place that the receipts do not come from: without --key it is only\n" +
			"shown that they belong together. Note what it prints as last, and give it as --anchor the next time: a chain\n" +
			"whose end was cut off is found by that alone.\n\n" +
			"Exit codes: 0 all are good, 1 the file cannot be read, 2 wrong arguments, 3 a receipt is not as it was signed.",
		Example: "  relais usage verify receipts.ndjson --key 9Qm4…=\n" +
			"  relais usage verify - -o json < receipts.ndjson\n" +
			"  relais usage verify receipts.ndjson --key 9Qm4…= --anchor 41=5f3c…",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := verifier(keyTexts, anchorTexts)
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return failed(err)
				}
				defer f.Close()
				in = f
			}
			return verifyReceipts(cmd, in, v, output)
		},
	}
	cmd.Flags().StringArrayVar(&keyTexts, "key", nil, "the operator's public key, 32 bytes in base64; several after one was replaced")
	cmd.Flags().StringArrayVar(&anchorTexts, "anchor", nil, "a receipt that was noted before, NUMBER=HASH")
	outputFlag(cmd, &output)
	return cmd
}

func verifier(keyTexts, anchorTexts []string) (*used.Verifier, error) {
	var keys []ed25519.PublicKey
	for _, t := range keyTexts {
		k, err := used.ParseKey(t)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		keys = append(keys, k)
	}
	var anchors []used.Anchor
	for _, t := range anchorTexts {
		number, hash, ok := strings.Cut(t, "=")
		n, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || n < 1 || len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("--anchor %s: write NUMBER=HASH, with the hash in 64 hexadecimal digits", t)
		}
		anchors = append(anchors, used.Anchor{Number: n, Hash: hash})
	}
	return used.NewVerifier(keys, anchors...), nil
}

func verifyReceipts(cmd *cobra.Command, in io.Reader, v *used.Verifier, output string) error {
	sum, err := used.VerifyFile(in, v)
	out := verified{OK: err == nil, Summary: sum}
	var b *used.BreakError
	switch {
	case errors.As(err, &b):
		out.Broken = &broken{b.Number, b.Line, b.Why}
	case err != nil:
		return failed(err)
	case sum.Receipts == 0:
		return failed(errors.New("there are no receipts in it"))
	}
	if err := show(cmd.OutOrStdout(), output, &out, func(w io.Writer) { showVerified(w, &out) }); err != nil {
		return err
	}
	if b != nil {
		return &exitError{code: exitFound, err: b, said: true}
	}
	return nil
}

func showVerified(w io.Writer, v *verified) {
	p := paintFor(w)
	if b := v.Broken; b != nil {
		what := fmt.Sprintf("line %d", b.Line)
		if b.Number > 0 {
			what = fmt.Sprintf("receipt %d (line %d)", b.Number, b.Line)
		}
		fmt.Fprintf(w, "%s %s: %s\n", p.red("not as it was signed:"), what, b.Why)
		if v.Receipts > 0 {
			fmt.Fprintf(w, "the %d before it, %d to %d, are good\n", v.Receipts, v.First, v.Last.Number)
		}
		return
	}
	fmt.Fprintf(w, "%s %d receipts of %s, %d to %d, %s to %s\n", p.green("good:"), v.Receipts, v.Organization, v.First, v.Last.Number,
		v.From.Time().Format(time.DateOnly), v.To.Time().Format(time.DateOnly))
	if v.Corrections > 0 {
		fmt.Fprintf(w, "%d are corrections: use that came after its day was closed\n", v.Corrections)
	}
	if v.Erased > 0 {
		fmt.Fprintf(w, "of %d the lines were erased: their totals are proved, and nothing below them\n", v.Erased)
	}
	if v.First > 1 {
		fmt.Fprintf(w, "receipts before %d are not in it\n", v.First)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	c := &v.Total
	fmt.Fprintln(t, "requests\tbytes in\tbytes out\tcache hits\tfetches\torders\trefused\t")
	fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", c.Requests, c.BytesIn, c.BytesOut, c.CacheHits, c.Fetches, c.Orders, c.Refused)
	_ = t.Flush()
	fmt.Fprintf(w, "last: %d=%s (note it, and give it as --anchor the next time)\n", v.Last.Number, v.Last.Hash)
	for _, k := range v.Keys {
		fmt.Fprintf(w, "signed by %s\n", k)
	}
	if !v.KeyChecked {
		fmt.Fprintln(w, p.bold("no key was given: compare this one with the operator's, or give that as --key"))
	}
}
