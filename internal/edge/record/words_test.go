package record

import (
	"strings"
	"testing"
)

func TestAnExplanationSaysInWordsWhyARequestIsInTheOverflow(t *testing.T) {
	past := func(codes ...string) (list []Decision) {
		for _, c := range codes {
			code, tier, _ := strings.Cut(c, " ")
			list = append(list, Decision{Stage: "balance", Code: code, Detail: tier})
		}
		return list
	}
	for _, c := range []struct {
		e    Explanation
		want string
	}{
		{Explanation{Spill: "soft", Visitor: "anonymous", Decisions: past("spill:soft home", "tier overflow")}, "home was at its soft mark, from where on new visitors without a basket go on, so that overflow got it"},
		{Explanation{Spill: "hard", Visitor: "anonymous", Decisions: past("spill:hard home", "tier overflow")}, "home was full for a visitor without a basket, so that overflow got it"},
		{Explanation{Spill: "hard", Visitor: "known", Decisions: past("spill:hard home")}, "home was full for a known visitor without a basket, so that overflow got it"},
		{Explanation{Spill: "hard", Visitor: "protected", Decisions: past("spill:hard home")}, "home was full for visitors with a basket too, so that overflow got it"},
		{Explanation{Spill: "unhealthy", Decisions: past("spill:unhealthy old", "retry x", "spill:unhealthy home")}, "no origin of home was well, so that overflow got it"},
		{Explanation{Spill: "tried", Decisions: past("spill:tried home")}, "every origin of home was tried for this request, so that overflow got it"},
		{Explanation{Spill: "stayed"}, "the visitor was sent to overflow in the last 30 s, and stays there"},
		{Explanation{Spill: "sticky"}, "the visitor's basket is in overflow"},
		{Explanation{Spill: "hard"}, "the tier before was full for a visitor without a basket, so that overflow got it"},
		{Explanation{Spill: "new"}, "not known to this version"},
	} {
		c.e.Tier = "overflow"
		if got := c.e.SpillWords(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
	}
	seen := map[string]bool{}
	for _, full := range []string{"waited", "stale", "room", "page", "new"} {
		e := Explanation{Full: full}
		if w := e.FullWords(); seen[w] || w == "not known to this version" != (full == "new") {
			t.Errorf("%s: %q", full, w)
		} else {
			seen[w] = true
		}
	}
}
