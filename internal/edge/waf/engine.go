package waf

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	crs "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"
	"github.com/corazawaf/coraza/v3/types/variables"
)

// Directives around the Core Rule Set. Rules 905100 and 905110 let requests from the machine
// itself pass, for a habit of another server. The engine's bound of a body is above any
// BodyBytes, so that it is never met. No directive depends on a policy.
const (
	before = `Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine Off
SecResponseBodyAccess Off
SecRequestBodyAccess On
SecRequestBodyLimit 67108864
SecRequestBodyInMemoryLimit 67108864
SecRequestBodyJsonDepthLimit 128
SecArgumentsLimit 1000
Include @crs-setup.conf.example
`
	after = `Include @owasp_crs/*.conf
SecRuleRemoveById 905100 905110
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:1000,phase:2,deny,t:none,log,msg:'More arguments than are examined',tag:'paranoia-level/1'"
`
)

// fill gives some rules exceptions for names that cannot be. When a transaction excludes a
// target, the engine appends to a rule's own list of exceptions for that variable. A list with
// room left would be written by all transactions at once. Its memory grows by doubling, so a
// list whose length is a power of two has no room.
const fill = `
SecRuleUpdateTargetById 920274 "!REQUEST_HEADERS:;"
SecRuleUpdateTargetById 920274 "!REQUEST_HEADERS:;"
SecRuleUpdateTargetById 942340 "!REQUEST_COOKIES:;"
SecRuleUpdateTargetById 942420 "!REQUEST_COOKIES:;"
SecRuleUpdateTargetById 942421 "!REQUEST_COOKIES:;"
SecRuleUpdateTargetById 942421 "!REQUEST_COOKIES:;"
SecRuleUpdateTargetById 942421 "!REQUEST_COOKIES:;"
SecRuleUpdateTargetById 942421 "!REQUEST_COOKIES:;"
`

// Rules of the recommended configuration that deny a body that cannot be parsed.
const (
	ruleParse     = 200002
	ruleMultipart = 200003
)

// engine is the compiled rule set.
type engine struct {
	waf   coraza.WAF
	rules []rule // detection rules, by id
}

// rule is what an exclusion needs to know of a detection rule.
type rule struct {
	id   int
	tags []string
}

// transaction is what we use of Coraza's transactions. The removals are what its ctl action
// uses; they are not in its public interface, so newEngine makes sure of them.
type transaction interface {
	types.Transaction
	Variables() plugintypes.TransactionVariables
	RemoveRuleByID(id int)
	RemoveRuleTargetByID(id int, v variables.RuleVariable, key string, keyRx *regexp.Regexp)
}

// newEngine compiles the rule set.
func newEngine() (e *engine, err error) {
	e = &engine{}
	cfg := experimental.WAFConfigWithRuleObserver(coraza.NewWAFConfig(), e.observe).
		WithRootFS(crs.FS).WithDirectives(before).WithDirectives(after + fill)
	if e.waf, err = coraza.NewWAF(cfg); err != nil {
		return nil, fmt.Errorf("compiling the Core Rule Set: %w", err)
	}
	if len(e.rules) == 0 {
		return nil, errors.New("compiling the Core Rule Set: it tells of no rules")
	}
	slices.SortFunc(e.rules, func(a, b rule) int { return a.id - b.id })
	tx := e.waf.NewTransaction()
	defer tx.Close()
	if _, ok := tx.(transaction); !ok {
		return nil, errors.New("this version of Coraza takes no exclusions for one transaction")
	}
	return e, nil
}

// observe is told of every rule as it is read.
func (e *engine) observe(m types.RuleMetadata) {
	id := m.ID()
	if id != ruleParse && id != ruleMultipart &&
		!slices.ContainsFunc(m.Tags(), func(t string) bool { return strings.HasPrefix(t, "paranoia-level/") }) {
		return
	}
	e.rules = append(e.rules, rule{id, m.Tags()})
}

// find lists the ids of the detection rules for which pick is true.
func (e *engine) find(pick func(*rule) bool) (ids []int) {
	for i := range e.rules {
		if pick(&e.rules[i]) {
			ids = append(ids, e.rules[i].id)
		}
	}
	return ids
}

func (e *engine) rule(id int) *rule {
	i, ok := slices.BinarySearchFunc(e.rules, id, func(r rule, id int) int { return r.id - id })
	if !ok {
		return nil
	}
	return &e.rules[i]
}
