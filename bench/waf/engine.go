package main

import (
	"fmt"
	"sync/atomic"
	"time"

	crs "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

// engine is Coraza alone with the rules that the product has, as its users set it up.
type engine struct{ waf coraza.WAF }

// newEngine compiles the rules at a paranoia level; prefilter turns on the engine's own short cut for expressions.
func newEngine(paranoia int, prefilter bool) (*engine, error) {
	short := "Off"
	if prefilter {
		short = "On"
	}
	w, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(crs.FS).WithDirectives(fmt.Sprintf(`Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine Off
SecResponseBodyAccess Off
SecRxPreFilter %s
Include @crs-setup.conf.example
SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%d,setvar:tx.detection_paranoia_level=%d"
Include @owasp_crs/*.conf
SecRuleRemoveById 905100 905110
`, short, paranoia, paranoia)))
	if err != nil {
		return nil, fmt.Errorf("the engine: %w", err)
	}
	return &engine{w}, nil
}

// judge runs the request phases; client is the visitor's address.
func (e *engine) judge(c *regression.Case, body []byte, client string) (*types.Interruption, error) {
	tx := e.waf.NewTransaction()
	defer func() { _ = tx.Close() }()
	tx.ProcessConnection(client, 50123, "127.0.0.1", 80)
	tx.ProcessURI(c.Target, c.Method, c.Proto)
	for _, f := range c.Fields {
		tx.AddRequestHeader(f.Name, f.Value)
	}
	tx.SetServerName("www.shop.example")
	if it := tx.ProcessRequestHeaders(); it != nil {
		return it, nil
	}
	if len(body) > 0 {
		if it, _, err := tx.WriteRequestBody(body); it != nil || err != nil {
			return it, err
		}
	}
	return tx.ProcessRequestBody()
}

// ask implements subject.
func (e *engine) ask(cases []regression.Case) (time.Duration, int, error) {
	bodies := make([][]byte, len(cases))
	for i := range cases {
		bodies[i] = []byte(cases[i].Body)
	}
	var denied atomic.Int64
	var failed atomic.Pointer[error]
	cpu := onAllCPUs(len(cases), func(i int) {
		it, err := e.judge(&cases[i], bodies[i], visitor)
		if err != nil {
			failed.Store(&err)
		}
		if it != nil {
			denied.Add(1)
		}
	})
	if err := failed.Load(); err != nil {
		return 0, 0, fmt.Errorf("the engine: %w", *err)
	}
	return cpu, int(denied.Load()), nil
}
