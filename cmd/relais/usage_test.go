package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	used "github.com/relais-edge/relais/internal/usage"
)

func TestUsageVerify(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	public := used.FormatKey(key.Public().(ed25519.PublicKey))
	other := used.FormatKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	day := used.DayOf(time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
	var file strings.Builder
	former := ""
	for i := range 3 {
		r := used.Receipt{
			Organization: "acme", Number: int64(i + 1), Day: day + used.Day(i), Kind: used.KindUsage, Made: day.Time(), Former: former,
			Sums: []used.Line{{Site: "shop", Pop: "fra1", Hour: (day + used.Day(i)).First(), Counts: used.Counts{Requests: 11, Refused: 3}}},
		}
		if err := r.Seal(key); err != nil {
			t.Fatal(err)
		}
		former = r.Hash
		line, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(line, '\n'))
	}
	good := filepath.Join(t.TempDir(), "receipts.ndjson")
	if err := os.WriteFile(good, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(file.String(), `"requests":11`, `"requests":12`, 2)
	for name, c := range map[string]struct {
		args   string
		in     string
		code   int
		prints []string
	}{
		"good":          {good + " --key " + public, "", 0, []string{"good: 3 receipts of acme, 1 to 3", "33", "last: 3=" + former}},
		"input":         {"- --key " + other + " --key " + public, file.String(), 0, []string{"good: 3"}},
		"no key":        {"", file.String(), 0, []string{"no key was given", "signed by " + public}},
		"json":          {"-o json --key " + public, file.String(), 0, []string{`"ok": true`, `"requests": 33`, `"number": 3`}},
		"anchored":      {good + " --anchor 3=" + former, "", 0, []string{"good"}},
		"another key":   {good + " --key " + other, "", exitFound, []string{"receipt 1 (line 1)", "not the operator's key"}},
		"changed":       {"", strings.Replace(bad, `"requests":12`, `"requests":11`, 1), exitFound, []string{"receipt 1 (line 1)"}},
		"json, bad":     {"-o json", file.String()[strings.Index(file.String(), "\n")+1:] + "nonsense\n", exitFound, []string{`"ok": false`, `"line": 3`, "no receipt"}},
		"cut":           {"--anchor 4=" + former, file.String(), exitFound, []string{"receipt 4", "missing", "the 3 before it"}},
		"empty":         {"", "", exitFailed, nil},
		"no file":       {good + ".none", "", exitFailed, nil},
		"no key's form": {"--key x", "", exitUsage, nil},
		"anchor's form": {"--anchor 3=x", "", exitUsage, nil},
	} {
		var out, errs bytes.Buffer
		cmd := root(&out, &errs)
		cmd.SetArgs(append([]string{"usage", "verify"}, strings.Fields(c.args)...))
		cmd.SetIn(strings.NewReader(c.in))
		code := 0
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			var e *exitError
			if !errors.As(err, &e) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			code = e.code
		}
		if code != c.code {
			t.Errorf("%s: exit code %d, not %d\n%s", name, code, c.code, &out)
		}
		for _, p := range c.prints {
			if !strings.Contains(out.String(), p) {
				t.Errorf("%s: %q is not in\n%s", name, p, &out)
			}
		}
	}
}
