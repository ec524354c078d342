package v1

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// limitFields are the fields of a spec by their path in a document, with their defaults.
func limitFields(t reflect.Type, prefix string, into map[string]string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		value := ""
		for part := range strings.SplitSeq(f.Tag.Get("schema"), ",") {
			if d, ok := strings.CutPrefix(part, "default="); ok {
				value = d
			}
		}
		into[prefix+name] = value
		limitFields(f.Type, prefix+name+".", into)
	}
}

// limitTable is a part of docs/limits.md.
type limitTable struct {
	heading string
	specs   []any
	whole   string // matches the fields that must have a row, of those with a number as default
	rows    int    // at least
}

func limitTables() []limitTable {
	return []limitTable{
		{"## What a visitor may cost", []any{ListenerSpec{}}, `^(limits|timeouts)\.`, 12},
		{"## What the clients of a Service may cost", []any{ServiceSpec{}}, `^(limits\..*|idle|hello|drain)$`, 5},
		{"## What an origin may cost", []any{OriginPoolSpec{}, SiteSpec{}}, `^(connection|retries|routes\.timeouts)\.`, 10},
		{"## What delivery may cost", []any{SiteSpec{}}, `^routes\.mirror\.maxBody$`, 1},
		{"## What pictures may cost", []any{ImagePolicySpec{}}, `^(maxSource|maxPixels|timeout)$`, 3},
		{"## What API protection may cost", []any{JwtPolicySpec{}, ApiPolicySpec{}}, `^(tokenBytes|bodyBytes|issuers\.clockSkew|issuers\.jwks\.refresh)$`, 4},
		{"## Certificates", []any{CertificateSpec{}}, `^acme\.(dns\.timeout|onDemand\.perMinute)$`, 2},
	}
}

// docs/limits.md is the operators' table of limits: it has a row for each limit that a document
// can change, and its defaults are those of the schema tags.
func TestTheTableOfLimitsHasEveryFieldAndItsDefault(t *testing.T) {
	text, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range limitTables() {
		_, part, ok := strings.Cut(string(text), table.heading)
		if !ok {
			t.Errorf("docs/limits.md: %q is missing", table.heading)
			continue
		}
		part, _, _ = strings.Cut(part, "\n## ")
		table.check(t, part)
	}
}

func (table *limitTable) check(t *testing.T, part string) {
	fields := map[string]string{}
	for _, spec := range table.specs {
		limitFields(reflect.TypeOf(spec), "", fields)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\|[^|]+\\| ([^|]+) \\| `([a-zA-Z.]+)` \\|").FindAllStringSubmatch(part, -1) {
		if _, twice := rows[m[2]]; twice {
			t.Errorf("%s: %s is there twice", table.heading, m[2])
		}
		rows[m[2]] = m[1]
	}
	for path, value := range rows {
		want, ok := fields[path]
		if !ok {
			t.Errorf("%s: there is no field %s", table.heading, path)
			continue
		}
		if got := plainValue(value); got != want && (got != "none" || want != "" && want != "0" && want != "0s") {
			t.Errorf("%s: %s is %q, its schema tag says %q", table.heading, path, value, want)
		}
	}
	whole := regexp.MustCompile(table.whole)
	for path, value := range fields {
		if _, ok := rows[path]; whole.MatchString(path) && !ok && limitLike(value) {
			t.Errorf("%s: %s is missing", table.heading, path)
		}
	}
	if len(rows) < table.rows {
		t.Errorf("%s: only %d rows were understood", table.heading, len(rows))
	}
}

// limitLike says whether a default is a number with or without a unit.
func limitLike(value string) bool { return value != "" && value[0] >= '0' && value[0] <= '9' }

// plainValue is a value of the table as a tag writes it.
func plainValue(s string) string {
	return strings.NewReplacer(",", "", " ", "", "B/s", "", "min", "m").Replace(s)
}
