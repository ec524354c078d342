package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// results is what a run writes as JSON: the machine, and every case by name.
type results struct {
	Machine  machine                `json:"machine"`
	Versions map[string]string      `json:"versions"`
	Cases    map[string]*caseResult `json:"cases"`
}

// caseResult is one case with its rows in the order of the case.
type caseResult struct {
	About   string      `json:"about"`
	When    string      `json:"when"` // RFC 3339
	Rounds  int         `json:"rounds"`
	Seconds int         `json:"seconds"` // of one visit
	Conns   int         `json:"conns"`
	Rows    []rowResult `json:"rows"`
}

// rowResult is one server in one case.
type rowResult struct {
	Name    string   `json:"name"`
	Void    string   `json:"void,omitempty"` // why the figures do not count
	Median  sample   `json:"median"`         // of each figure over the rounds
	Samples []sample `json:"samples"`        // one a round
}

// row finds a row by name; a row that is not there is void.
func (c *caseResult) row(name string) rowResult {
	for _, r := range c.Rows {
		if r.Name == name {
			return r
		}
	}
	return rowResult{Name: name, Void: "not measured"}
}

// median takes the median of each figure by itself; errors are added up.
func median(samples []sample) sample {
	if len(samples) == 0 {
		return sample{}
	}
	of := func(figure func(sample) float64) float64 {
		values := make([]float64, 0, len(samples))
		for _, s := range samples {
			values = append(values, figure(s))
		}
		return middle(values)
	}
	m := sample{
		Requests:    int64(of(func(s sample) float64 { return float64(s.Requests) })),
		PerSecond:   of(func(s sample) float64 { return s.PerSecond }),
		CPUMicros:   of(func(s sample) float64 { return s.CPUMicros }),
		Busy:        of(func(s sample) float64 { return s.Busy }),
		P50Micros:   of(func(s sample) float64 { return s.P50Micros }),
		ConnKiB:     of(func(s sample) float64 { return s.ConnKiB }),
		MemoryMiB:   of(func(s sample) float64 { return s.MemoryMiB }),
		LogBytes:    of(func(s sample) float64 { return s.LogBytes }),
		OriginShare: of(func(s sample) float64 { return s.OriginShare }),
	}
	for _, s := range samples {
		m.BadStatus += s.BadStatus
		m.SocketErrors += s.SocketErrors
	}
	return m
}

// middle is the median of values, which it sorts; 0 of none.
func middle(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// spread is the lowest and highest CPU per request over the rounds.
func (r rowResult) spread() (low, high float64) {
	for i, s := range r.Samples {
		if i == 0 || s.CPUMicros < low {
			low = s.CPUMicros
		}
		high = max(high, s.CPUMicros)
	}
	return low, high
}

// markdown is the whole report.
func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("# Benchmark results\n\nMade by `go run ./bench`; how, and what to distrust: [README](../README.md). CPU is of the server, per request, median over the rounds; per core is the CPU of nginx, or of the first row where there is no nginx, divided by it, median of the rounds' ratios, higher is better.\n\n")
	fmt.Fprintf(&b, "Machine: %s, %d cores, Linux %s, %s.\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	for _, name := range sortedKeys(r.Versions) {
		fmt.Fprintf(&b, "%s: `%s`.\n", name, r.Versions[name])
	}
	for _, c := range cases() {
		if r.Cases[c.name] != nil {
			r.Cases[c.name].markdown(&b, c.name)
		}
	}
	return b.String()
}

func (c *caseResult) markdown(b *strings.Builder, name string) {
	if c.row(product).Median.ConnKiB != 0 || c.row(baseline).Median.ConnKiB != 0 {
		b.WriteString(c.idleTable(name))
		return
	}
	fmt.Fprintf(b, "\n## %s\n%s. %s, %d rounds of %d s, %d connections.\n\n", name, c.About, c.When, c.Rounds, c.Seconds, c.Conns)
	base := c.row(baseline)
	if base.Void == "not measured" && len(c.Rows) > 0 {
		base = c.Rows[0]
	}
	fmt.Fprintf(b, "| server | CPU µs | lowest-highest | per core against %s | requests/s | core busy | memory MiB | log bytes a request | errors |\n|---|---|---|---|---|---|---|---|---|\n", base.Name)
	for _, r := range c.Rows {
		if r.Void != "" {
			fmt.Fprintf(b, "| %s | void: %s | | | | | | | |\n", r.Name, strings.ReplaceAll(r.Void, "|", "/"))
			continue
		}
		low, high := r.spread()
		ratio := "-"
		if got := r.ratioTo(base); base.Void == "" && got > 0 {
			ratio = fmt.Sprintf("%.2f", got)
		}
		m := r.Median
		fmt.Fprintf(b, "| %s | %.2f | %.2f-%.2f | %s | %.0f | %.2f | %.0f | %.0f | %d |\n",
			r.Name, m.CPUMicros, low, high, ratio, m.PerSecond, m.Busy, m.MemoryMiB, m.LogBytes, m.BadStatus+m.SocketErrors)
	}
}

// save puts the cases into bench.json and bench.md of dir. Cases that are
// there and were not run again are kept.
func (r *results) save(dir string) error {
	path := filepath.Join(dir, "bench.json")
	all := &results{Machine: r.Machine, Versions: map[string]string{}, Cases: map[string]*caseResult{}}
	b, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(b, all); err != nil {
			return fmt.Errorf("%s: %w; delete it or mend it", path, err)
		}
		all.Machine = r.Machine
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for k, v := range r.Versions {
		all.Versions[k] = v
	}
	for k, v := range r.Cases {
		all.Cases[k] = v
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := writeJSON(path, all); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench.md"), []byte(all.markdown()), 0o644)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if path == "-" {
		_, err = os.Stdout.Write(b)
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
