// Package caching is a table of what the caching documents ask of a shared cache (RFC 9111, 9110, 9213,
// 5861, 9211, 9875), and runs it against one: each case says which sentence it proves, plays a client
// before the cache and the origin behind it, and tells from what the origin saw where an answer came from.
package caching

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// Need is how strongly a document asks for what a case proves.
type Need string

// The needs.
const (
	Must   Need = "must"   // else the cache is wrong
	Should Need = "should" // else it could reuse what it does not
)

// From is where the answer of a step has to come from.
type From uint8

// The sources.
const (
	Anywhere  From = iota
	Origin         // the origin was asked, and its answer came
	Cache          // the origin was not asked
	Validated      // the origin was asked with a condition and said 304; the stored answer came
)

// Step is one request of a case. A date in a field is @N, N seconds from now; @850:N and @asc:N are
// the obsolete forms.
type Step struct {
	Wait    time.Duration // before the request
	Method  string        // GET when empty
	Target  string        // appended to the case's own path, such as ?a=1
	Send    []string      // request fields, "Name: value"
	Content string        // of the request
	Reply   Reply         // of the origin, if it is asked
	From    From
	Status  int      // of the answer; the reply's when 0
	Has     []string // fields of the answer, "Name: value", or "Name" for any value
	Lacks   []string
	Body    string   // of the answer; the reply's that it stems from when empty
	Saw     []string // fields that the origin had to see
	Unseen  []string // and those that it must not
	Interim int      // the status of the interim answer that must come first; 0 when none must
}

// Reply is an answer of the origin.
type Reply struct {
	Status int // 200 when 0
	Fields []string
	Body   string // the case's own text when empty
	Hangup bool   // close the connection in place of an answer
	Cut    bool   // close it behind the body, which then has not the length that is announced, or no last chunk
	Delay  time.Duration
	// Interim is sent before the answer, with the fields of Early.
	Interim int
	Early   []string
}

// Case is one row of the table.
type Case struct {
	Name  string // group/section/what, without spaces
	Says  string // the sentence that it proves, in our words
	Need  Need
	Steps []Step
}

// Result is how a case went. Why is empty when it passed.
type Result struct {
	Case
	Why string
}

// settled is the time that a cache is given to store what it fetched.
const settled = 40 * time.Millisecond

// Run runs the cases that pick chooses, all at once, through the cache at base (http://host:port),
// which forwards to an address where origin listens.
func Run(ctx context.Context, base string, origin *Backend, pick func(Case) bool) []Result {
	var chosen []Case
	for _, c := range Cases() {
		if pick == nil || pick(c) {
			chosen = append(chosen, c)
		}
	}
	client := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	defer client.CloseIdleConnections()
	results := make([]Result, len(chosen))
	run := fmt.Sprintf("/%x/", time.Now().UnixNano())
	at := make(chan struct{}, 64)
	var wg sync.WaitGroup
	for i, c := range chosen {
		wg.Go(func() {
			at <- struct{}{}
			defer func() { <-at }()
			p := &player{c: c, base: base, path: run + c.Name, client: client, script: origin.expect(run + c.Name)}
			results[i] = Result{c, p.play(ctx)}
		})
	}
	wg.Wait()
	return results
}

type player struct {
	c          Case
	base, path string
	client     *http.Transport
	script     *script
}

func (p *player) play(ctx context.Context) string {
	for i := range p.c.Steps {
		s := &p.c.Steps[i]
		time.Sleep(s.Wait + settled)
		if why := p.step(ctx, s); why != "" {
			return fmt.Sprintf("step %d: %s", i+1, why)
		}
	}
	return ""
}

func (p *player) step(ctx context.Context, s *Step) string {
	method := s.Method
	if method == "" {
		method = http.MethodGet
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var content io.Reader
	if s.Content != "" {
		content = strings.NewReader(s.Content)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+p.path+s.Target, content)
	if err != nil {
		return err.Error()
	}
	now := time.Now()
	for _, f := range s.Send {
		name, value, _ := strings.Cut(f, ": ")
		req.Header[http.CanonicalHeaderKey(name)] = append(req.Header[http.CanonicalHeaderKey(name)], p.expand(value, now))
	}
	p.script.next(s)
	interim := 0
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { interim = code; return nil },
	}))
	resp, err := p.client.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil && !s.Reply.Hangup && !s.Reply.Cut {
		return "the body breaks off: " + err.Error()
	}
	if s.Interim != interim {
		return fmt.Sprintf("an interim answer with status %d came first, want %d", interim, s.Interim)
	}
	return p.judge(s, resp, string(body))
}

// judge compares an answer with its step; empty when it is right.
func (p *player) judge(s *Step, resp *http.Response, body string) string {
	asked, when := p.script.asked()
	id := resp.Header.Get("Reply-Id")
	status := s.Status
	switch s.From {
	case Origin:
		if asked == nil {
			return "came from the cache, and the origin was not asked"
		}
		if !s.Reply.Hangup && id != p.script.id() && status == 0 {
			return "the origin was asked, but its answer did not come"
		}
	case Cache:
		if asked != nil {
			return "the origin was asked"
		}
	case Validated:
		if asked == nil {
			return "the origin was not asked"
		}
		if asked.Get("If-None-Match") == "" && asked.Get("If-Modified-Since") == "" {
			return "the origin was asked without a condition"
		}
	}
	if status == 0 {
		status = p.script.statusOf(id)
	}
	if resp.StatusCode != status {
		return fmt.Sprintf("status %d, want %d", resp.StatusCode, status)
	}
	if why := fields(s, resp.Header, asked, when, p); why != "" {
		return why
	}
	want := s.Body
	if want == "" && s.Status == 0 && s.Method != http.MethodHead {
		want = p.script.bodyOf(id)
	}
	if want != "" && body != want {
		return fmt.Sprintf("body %.60q, want %.60q", body, want)
	}
	return ""
}

func fields(s *Step, got, asked http.Header, when time.Time, p *player) string {
	for _, f := range s.Has {
		name, value, exact := strings.Cut(f, ": ")
		v := strings.Join(got.Values(name), ", ")
		if v == "" && !present(got, name) || exact && v != p.expand(value, when) {
			return fmt.Sprintf("%s is %q, want %q", name, v, f)
		}
	}
	for _, name := range s.Lacks {
		if present(got, name) {
			return fmt.Sprintf("has %s: %s", name, got.Get(name))
		}
	}
	for _, f := range s.Saw {
		name, value, exact := strings.Cut(f, ": ")
		if asked == nil || !present(asked, name) || exact && asked.Get(name) != value {
			return fmt.Sprintf("the origin saw %v, want %s", asked, f)
		}
	}
	for _, name := range s.Unseen {
		if present(asked, name) {
			return fmt.Sprintf("the origin saw %s: %s", name, asked.Get(name))
		}
	}
	return ""
}

// expand puts dates, and the case's own path for PATH, into a value.
func (p *player) expand(v string, now time.Time) string {
	return expand(strings.ReplaceAll(v, "PATH", p.path), now)
}

func expand(v string, now time.Time) string {
	rest, ok := strings.CutPrefix(v, "@")
	if !ok {
		return v
	}
	layout := http.TimeFormat
	if r, ok := strings.CutPrefix(rest, "850:"); ok {
		layout, rest = "Monday, 02-Jan-06 15:04:05 GMT", r
	} else if r, ok := strings.CutPrefix(rest, "asc:"); ok {
		layout, rest = time.ANSIC, r
	}
	d, err := time.ParseDuration(rest + "s")
	if err != nil {
		panic("not a date: " + v)
	}
	return now.Add(d).UTC().Format(layout)
}
