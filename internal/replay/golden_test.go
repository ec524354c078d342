package replay

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/edge/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// evening are requests of a little shop, of which something goes through every stage.
func evening() []*record.Request {
	var list []*record.Request
	query := func(q string) func(*record.Request) { return func(r *record.Request) { r.Query = &q } }
	no := func(r *record.Request) {
		r.Answer.Fields = []record.Field{{"Content-Type", "text/html"}, {"Cache-Control", "no-store"}}
	}
	for n := range 400 {
		client := func(r *record.Request) {
			r.Client = fmt.Sprintf("192.0.2.%d", n%23)
			r.Millis = float64(20 + n%7*40)
			r.Time = began.Add(time.Duration(n) * 20 * time.Millisecond)
		}
		with := []func(*record.Request){client}
		method, path := "GET", fmt.Sprintf("/p/%d", n%31)
		switch {
		case n%13 == 0:
			path = "/search"
			with = append(with, no, query([]string{"q=shoes", "q=%27%20or%20%271%27=%271", "q=union+of+select+brands"}[n/13%3]))
		case n%17 == 0:
			method, path = "POST", "/basket"
			with = append(with, no, func(r *record.Request) {
				r.Body = &record.Body{Text: "product=12&count=1", Size: 18}
				r.Fields = append(r.Fields, record.Field{"Content-Type", "application/x-www-form-urlencoded"}, record.Field{"Content-Length", "18"})
			})
		case n%19 == 0:
			path = "/old/page"
		case n%23 == 0:
			path = "/account"
			with = append(with, no, func(r *record.Request) {
				r.Fields = append(r.Fields, record.Field{"Cookie", "relais_visitor=xyz; a=b"})
				r.Visitor = record.Visitor{Class: "protected", Key: uint64(n), Tier: "own"}
			})
		case n%29 == 0:
			path = "/broken"
			with = append(with, func(r *record.Request) {
				r.Answer = record.Answer{Status: 502, Made: true}
				r.Outcome = record.Outcome{Code: "connection_refused", Side: "origin", Tries: 1}
			})
		}
		list = append(list, request(n, method, path, with...))
	}
	return list
}

func TestGoldenReplays(t *testing.T) {
	text := func(name string) string {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := compiled(t, text("old.yaml"))
	for _, c := range []struct{ name, after string }{
		{"same", "old.yaml"}, {"routes", "routes.yaml"}, {"rules", "rules.yaml"}, {"small", "small.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := compiled(t, text(c.after))
			var first []byte
			for range 2 { // the same each time
				s, err := Run(t.Context(), &Question{Before: before, After: after, Requests: evening(), Seed: 7})
				if err != nil {
					t.Fatal(err)
				}
				out, err := json.MarshalIndent(s, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				if first != nil && !bytes.Equal(first, out) {
					t.Fatalf("the same question has two answers:\n%s\n%s", first, out)
				}
				first = out
			}
			golden := filepath.Join("testdata", c.name+".golden.json")
			if *update {
				if err := os.WriteFile(golden, append(first, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || !bytes.Equal(bytes.TrimSpace(want), first) {
				t.Errorf("%v: it is now (-update writes it)\n%s", err, first)
			}
		})
	}
}
