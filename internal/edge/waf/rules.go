package waf

import (
	"strconv"
	"strings"
)

// levelOf reads the paranoia level from a rule's tags; 0 where there is none.
func levelOf(tags []string) int {
	for _, t := range tags {
		if s, ok := strings.CutPrefix(t, "paranoia-level/"); ok {
			n, _ := strconv.Atoi(s)
			return n
		}
	}
	return 0
}

// variablesOf reads from a rule's text which variables it looks at, those of its chain included,
// and whether it counts one.
func variablesOf(raw string) (names []string, counted bool) {
	for {
		_, rest, ok := strings.Cut(raw, "SecRule ")
		if !ok {
			return names, counted
		}
		list, after, _ := strings.Cut(strings.TrimLeft(rest, " \t\\\n"), " ")
		for v := range strings.SplitSeq(strings.Trim(list, `"`), "|") {
			if strings.HasPrefix(v, "!") {
				continue
			}
			if c, ok := strings.CutPrefix(v, "&"); ok {
				v, counted = c, true
			}
			name, _, _ := strings.Cut(v, ":")
			names = append(names, strings.ToUpper(name))
		}
		raw = after
	}
}
