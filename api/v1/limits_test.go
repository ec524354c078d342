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

// docs/limits.md is the operators' table of limits: it has a row for each limit of a Listener
// and of a connection to an origin, and its defaults are those of the schema tags.
func TestTheTableOfLimitsHasEveryFieldAndItsDefault(t *testing.T) {
	text, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for _, spec := range []any{ListenerSpec{}, OriginPoolSpec{}, SiteSpec{}} {
		limitFields(reflect.TypeOf(spec), "", fields)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\|[^|]+\\| ([^|]+) \\| `([a-zA-Z.]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		rows[m[2]] = m[1]
	}
	for path, value := range rows {
		want, ok := fields[path]
		if !ok {
			t.Errorf("docs/limits.md: there is no field %s", path)
			continue
		}
		if got := plainValue(value); got != want && (got != "none" || want != "" && want != "0" && want != "0s") {
			t.Errorf("docs/limits.md: %s is %q, its schema tag says %q", path, value, want)
		}
	}
	for path := range fields {
		group, _, _ := strings.Cut(path, ".")
		whole := group == "limits" || group == "timeouts" || group == "connection" || strings.HasPrefix(path, "routes.timeouts.") || group == "retries"
		if _, ok := rows[path]; whole && strings.Contains(path, ".") && !ok && limitLike(fields[path]) {
			t.Errorf("docs/limits.md: %s is missing", path)
		}
	}
	if len(rows) < 25 {
		t.Errorf("only %d rows were understood", len(rows))
	}
}

// limitLike says whether a default is a number with or without a unit.
func limitLike(value string) bool { return value != "" && value[0] >= '0' && value[0] <= '9' }

// plainValue is a value of the table as a tag writes it.
func plainValue(s string) string {
	return strings.NewReplacer(",", "", " ", "", "B/s", "").Replace(s)
}
