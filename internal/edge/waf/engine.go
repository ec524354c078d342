package waf

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/relais-edge/relais/internal/edge/waf/screen"

	crs "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"
	"github.com/corazawaf/coraza/v3/types/variables"
)

// Directives around the Core Rule Set. Rules 905100 and 905110 let requests from the machine
// itself pass, for a habit of another server. The engine's bounds of a body are above any
// BodyBytes and ResponseBytes, so that they are never met. No directive depends on a policy.
const (
	before = `Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine Off
SecResponseBodyAccess On
SecResponseBodyLimit 4194304
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

// ruleBehindSkip stands behind a rule that skips one rule when the body is JSON. Were it removed,
// the skip would fall on the switch after it and let in the rules of level 2, so it stays and is
// given nothing to look at.
const ruleBehindSkip = 920540

var variablesBehindSkip = [...]variables.RuleVariable{variables.RequestURI, variables.RequestHeaders, variables.Args, variables.ArgsNames}

// engine is the compiled rule set.
type engine struct {
	waf   coraza.WAF
	rules []rule // detection rules, by id
	// version is that of the rule set, such as OWASP_CRS/4.25.0.
	version string
	// memory is that of each screen for values it has seen.
	memory int

	mu      sync.Mutex
	screens [4]*screen.Screen // by paranoia, made at the first use
}

// screen returns the screen of a paranoia level, which all policies of that level share. It is
// nil when a directive is not known to it: then the engine judges every request.
func (e *engine) screen(paranoia int) *screen.Screen {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.screens[paranoia-1]
	if *s == nil {
		level := strconv.Itoa(paranoia)
		made, err := screen.Compile(screen.Config{
			FS:         crs.FS,
			Directives: []string{before, after + fill},
			Settings:   map[string]string{"blocking_paranoia_level": level, "detection_paranoia_level": level},
			Unknown:    []string{"inbound_anomaly_score_threshold"},
			Rules:      e.ids(),
			MemoBytes:  e.memory,
		})
		if err != nil {
			return nil
		}
		*s = made
	}
	return *s
}

// rule is what an exclusion needs to know of a detection rule.
type rule struct {
	id   int
	tags []string
	// variables are what the rule and those chained to it look at; counted says that it counts
	// one of them, which no exclusion of a target changes.
	variables []string
	counted   bool
	level     int // of paranoia from which it adds to the score
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
	if v := m.Version(); v != "" {
		e.version = v
	}
	r := rule{id: id, tags: m.Tags()}
	r.variables, r.counted = variablesOf(m.Raw())
	r.level = levelOf(m.Tags())
	e.rules = append(e.rules, r)
}

// find returns the numbers of the detection rules for which pick is true.
func (e *engine) find(pick func(*rule) bool) screen.RuleSet {
	set := screen.NewRuleSet(len(e.rules))
	for i := range e.rules {
		if pick(&e.rules[i]) {
			set.Add(i)
		}
	}
	return set
}

func (e *engine) ids() []int {
	ids := make([]int, len(e.rules))
	for i := range e.rules {
		ids[i] = e.rules[i].id
	}
	return ids
}

func (e *engine) rule(id int) *rule {
	_, r := e.number(id)
	return r
}

// number finds a detection rule and its number by its id; nil when there is none.
func (e *engine) number(id int) (int, *rule) {
	i, ok := slices.BinarySearchFunc(e.rules, id, func(r rule, id int) int { return r.id - id })
	if !ok {
		return 0, nil
	}
	return i, &e.rules[i]
}
