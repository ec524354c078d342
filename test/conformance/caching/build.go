package caching

import "time"

// Cases returns the table. Names are unique.
func Cases() []Case {
	var all []Case
	for _, group := range [][]Case{
		freshness(), ages(), expires(), heuristics(), statuses(), requests(), responses(), storedFields(),
		validation(), updates(), heads(), invalidation(), methods(), vary(), varyForms(), targeted(), stale(), ranges(), parts(), groups(), statusField(),
	} {
		all = append(all, group...)
	}
	return all
}

// again is how long a step waits for what lives a second to be stale.
const again = 2100 * time.Millisecond

func get(fields ...string) Step { return Step{Reply: Reply{Fields: fields}, From: Origin} }

func (s Step) from(f From) Step               { s.From = f; return s }
func (s Step) status(n int) Step              { s.Reply.Status = n; return s }
func (s Step) wait(d time.Duration) Step      { s.Wait = d; return s }
func (s Step) send(fields ...string) Step     { s.Send = fields; return s }
func (s Step) method(m string) Step           { s.Method = m; return s }
func (s Step) has(fields ...string) Step      { s.Has = fields; return s }
func (s Step) lacks(names ...string) Step     { s.Lacks = names; return s }
func (s Step) saw(fields ...string) Step      { s.Saw = fields; return s }
func (s Step) body(b string) Step             { s.Reply.Body = b; return s }
func (s Step) target(t string) Step           { s.Target = t; return s }
func (s Step) want(status int, b string) Step { s.Status, s.Body = status, b; return s }

var (
	hit  = Step{From: Cache}
	miss = Step{From: Origin}
)

// reused is a case whose answer is used again.
func reused(name, says string, fields ...string) Case {
	return Case{name, says, Should, []Step{get(fields...), hit}}
}

// notReused is a case whose answer must not be used again.
func notReused(name, says string, fields ...string) Case {
	return Case{name, says, Must, []Step{get(fields...), miss}}
}

// expired is a case whose answer must not be used again after its second.
func expired(name, says string, fields ...string) Case {
	return Case{name, says, Must, []Step{get(fields...), miss.wait(again)}}
}

func must(name, says string, steps ...Step) Case   { return Case{name, says, Must, steps} }
func should(name, says string, steps ...Step) Case { return Case{name, says, Should, steps} }
