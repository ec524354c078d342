package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/record"
)

// Question is what two revisions are compared by.
type Question struct {
	Before, After *bundle.Bundle
	Requests      []*record.Request // in any order
	Seed          uint64
	CacheBytes    int64
	Zone          string
	Number        uint64
	// Progress is told the share that is done; nil for nobody.
	Progress func(share float64)
	// Each is told of every request that differs, in their order; nil for nobody.
	Each func(q *record.Request, before, after *Result, d []Difference)
}

// Summary says what two revisions do differently.
type Summary struct {
	Requests  int `json:"requests"`
	Different int `json:"different"`
	// Unreadable requests could not be replayed; the first few are in Problems.
	Unreadable int      `json:"unreadable,omitempty"`
	Problems   []string `json:"problems,omitempty"`
	// Assumed counts the requests for which an origin was asked of which no answer was recorded; Cut those
	// whose body was not kept whole.
	Assumed int       `json:"assumed"`
	Cut     int       `json:"cut"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Kinds   []Count   `json:"kinds"`
	// Recorded counts the requests of which already the first revision differs from what was recorded.
	Recorded Drift `json:"recorded"`
}

// Drift counts the requests that the first revision treats differently from what was recorded, by what it
// is about: the more there are, the less a replay says.
type Drift struct {
	Site    int `json:"site"`
	Route   int `json:"route"`
	Blocked int `json:"blocked"`
	Cache   int `json:"cache"`
	Tier    int `json:"tier"`
	Status  int `json:"status"`
}

// Count is how many requests differ in one kind.
type Count struct {
	Kind    Kind    `json:"kind"`
	Count   int     `json:"count"`
	Share   float64 `json:"share"`
	Changes []Group `json:"changes"`
	// Others are those of more changes than are listed.
	Others int `json:"others,omitempty"`
}

// Group is one change and how many requests it is of, with some of them.
type Group struct {
	Before   string    `json:"before"`
	After    string    `json:"after"`
	Count    int       `json:"count"`
	Examples []Example `json:"examples"`
}

// Example is a request.
type Example struct {
	ID      string `json:"id"`
	Request string `json:"request"`
	Detail  string `json:"detail,omitempty"`
}

// Bounds of a Summary.
const (
	maxGroups   = 64 // of a kind
	maxExamples = 3  // of a group
	maxProblems = 5
	maxText     = 100 // of an example
)

// ErrNoRequests says that there is nothing to replay.
var ErrNoRequests = errors.New("there is no recorded request; record some (relais serve --record), and export them (relais record export)")

// Run replays all requests through both revisions and compares. The same question gives the same summary.
func Run(ctx context.Context, q *Question) (*Summary, error) {
	if len(q.Requests) == 0 {
		return nil, ErrNoRequests
	}
	list := slices.Clone(q.Requests)
	slices.SortStableFunc(list, func(a, b *record.Request) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID))
	})
	known := answers(list)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Both revisions run beside each other, each in its own goroutine and in the same order.
	var sides [2]<-chan side
	for i, b := range [...]*bundle.Bundle{q.Before, q.After} {
		r, err := New(ctx, Config{
			Start: list[0].Time, Seed: q.Seed, CacheBytes: q.CacheBytes, Zone: q.Zone, Number: q.Number, Known: known.find,
		}, b)
		if err != nil {
			for _, s := range sides[:i] {
				cancel()
				for range s { // until it has closed what it has
				}
			}
			return nil, fmt.Errorf("the %s documents: %w", [...]string{"old", "new"}[i], err)
		}
		sides[i] = runAll(ctx, r, list)
	}
	s := &summary{Summary: Summary{From: list[0].Time, To: list[len(list)-1].Time}, kinds: map[Kind]*kindCount{}}
	for i, req := range list {
		a, okA := <-sides[0]
		b, okB := <-sides[1]
		if !okA || !okB {
			break
		}
		s.add(q, req, &a, &b)
		if q.Progress != nil && i%256 == 0 {
			q.Progress(float64(i) / float64(len(list)))
		}
	}
	err := ctx.Err()
	cancel()
	for _, c := range sides {
		for range c {
		}
	}
	if err != nil {
		return nil, err
	}
	return s.end(), nil
}

// side is what became of a request in one revision.
type side struct {
	res Result
	err error
}

// runAll replays a list, and closes the runner and then the channel at its end or when ctx ends.
func runAll(ctx context.Context, r *Runner, list []*record.Request) <-chan side {
	out := make(chan side, 256)
	go func() {
		defer close(out)
		defer func() { _ = r.Close() }()
		for _, q := range list {
			res, err := r.Run(ctx, q)
			select {
			case out <- side{res, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// answers are the first recorded answers of origins by what was asked for.
type answerKey struct{ method, authority, path string }

type answerTable map[answerKey]*record.Request

func keyOf(q *record.Request) answerKey { return answerKey{q.Method, q.Authority, q.Path} }

func answers(list []*record.Request) answerTable {
	t := answerTable{}
	for _, q := range list {
		if k := keyOf(q); !q.Answer.Made && q.Answer.Status >= 200 && q.Answer.Status < 400 && t[k] == nil {
			t[k] = q
		}
	}
	return t
}

func (t answerTable) find(q *record.Request) *record.Request { return t[keyOf(q)] }

// summary is a Summary that is being made.
type summary struct {
	Summary
	kinds map[Kind]*kindCount
}

type kindCount struct {
	Count
	at map[[2]string]int
}

func (s *summary) add(q *Question, req *record.Request, a, b *side) {
	err := a.err
	if err == nil {
		err = b.err
	}
	if err != nil {
		s.Unreadable++
		if len(s.Problems) < maxProblems {
			s.Problems = append(s.Problems, err.Error())
		}
		return
	}
	s.Requests++
	if a.res.Assumed || b.res.Assumed {
		s.Assumed++
	}
	if req.Body != nil && req.Body.Cut {
		s.Cut++
	}
	s.Recorded.add(req, &a.res)
	d := Compare(&a.res, &b.res)
	if len(d) == 0 {
		return
	}
	s.Different++
	if q.Each != nil {
		q.Each(req, &a.res, &b.res, d)
	}
	for _, one := range d {
		detail := ""
		if one.Kind == KindWAF {
			if detail = b.res.Detail; detail == "" {
				detail = a.res.Detail
			}
		}
		s.count(one, req, detail)
	}
}

func (s *summary) count(d Difference, req *record.Request, detail string) {
	k := s.kinds[d.Kind]
	if k == nil {
		k = &kindCount{Count: Count{Kind: d.Kind}, at: map[[2]string]int{}}
		s.kinds[d.Kind] = k
	}
	k.Count.Count++
	key := [2]string{d.Before, d.After}
	i, ok := k.at[key]
	if !ok {
		if len(k.Changes) == maxGroups {
			k.Others++
			return
		}
		i = len(k.Changes)
		k.at[key] = i
		k.Changes = append(k.Changes, Group{Before: d.Before, After: d.After})
	}
	g := &k.Changes[i]
	if g.Count++; len(g.Examples) < maxExamples {
		text := req.Method + " " + req.Authority + req.Path
		if req.Query != nil {
			text += "?" + *req.Query
		}
		if len(text) > maxText {
			text = strings.ToValidUTF8(text[:maxText], "") + "…"
		}
		g.Examples = append(g.Examples, Example{req.ID, text, detail})
	}
}

func (s *summary) end() *Summary {
	s.Kinds = []Count{}
	for _, k := range Kinds {
		if c := s.kinds[k]; c != nil {
			c.Share = float64(c.Count.Count) / float64(s.Requests)
			slices.SortStableFunc(c.Changes, func(a, b Group) int { return cmp.Compare(b.Count, a.Count) })
			s.Kinds = append(s.Kinds, c.Count)
		}
	}
	return &s.Summary
}

// add notes where a result differs from what was recorded.
func (d *Drift) add(q *record.Request, r *Result) {
	o := &q.Outcome
	for _, c := range []struct {
		differs bool
		count   *int
	}{
		{o.Site != r.Site, &d.Site},
		{o.Route != r.Route, &d.Route},
		{(o.Code == "http_request_denied") != (r.Code == "http_request_denied"), &d.Blocked},
		{o.Cache != r.Cache, &d.Cache},
		{o.Tier != r.Tier, &d.Tier},
		{q.Answer.Status != r.Status, &d.Status},
	} {
		if c.differs {
			*c.count++
		}
	}
}

// Read reads a record, of which at most most requests are taken, and says what of it could not be read.
func Read(r io.Reader, most int) (list []*record.Request, problems []error, err error) {
	err = record.ReadRequests(r, func(q *record.Request) error {
		if len(list) == most {
			return fmt.Errorf("the record has more than %d requests; split it by time", most)
		}
		list = append(list, q)
		return nil
	}, func(e *record.LineError) error {
		if len(problems) < 1000 {
			problems = append(problems, e)
		}
		return nil
	})
	return list, problems, err
}
