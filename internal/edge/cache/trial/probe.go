package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Run compares pages until ctx ends.
func (s *Stage) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range s.cfg.Workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case c := <-s.queue:
					s.examine(ctx, c)
				}
			}
		})
	}
	return nil
}

// examine compares a page, and notes what was found.
func (s *Stage) examine(ctx context.Context, c *sample) {
	defer func() {
		if p := recover(); p != nil {
			c.rule.site.skip("panic")
			s.skipped.Inc()
		}
	}()
	f, err := c.compare(ctx)
	if err != nil {
		c.rule.site.skip(err.Error())
		s.skipped.Inc()
		return
	}
	c.rule.site.add(f)
	s.compared.Inc()
}

// answer is a page that was asked for.
type answer struct {
	body    []byte
	id      string
	sets    string
	forbids bool
}

// compare asks for the page once without cookies. Where it differs it asks once more, to tell what is made
// anew each time, and with single cookies.
func (c *sample) compare(ctx context.Context) (*finding, error) {
	f := &finding{key: groupKey{c.x.Route.Name, c.paths}, seen: c.all}
	bare, err := c.ask(ctx, nil)
	if err != nil {
		return nil, err
	}
	f.sets, f.forbids = bare.sets, bare.forbids
	if f.why = compare(c.body, bare.body, c.id, bare.id); f.why.reason == "" {
		f.equal = true
		return f, nil
	}
	if len(c.all) == 0 {
		return f, nil
	}
	again, err := c.ask(ctx, nil)
	if err != nil {
		return nil, err
	}
	if d := compare(bare.body, again.body, bare.id, again.id); d.reason != "" {
		f.why = d // it differs each time, whoever asks
		return f, nil
	}
	return f, c.blame(ctx, f, again)
}

// blame asks with single cookies which of them changes the page.
func (c *sample) blame(ctx context.Context, f *finding, bare *answer) error {
	var open []cookie
	for _, k := range c.all {
		if isSession(k.name, c.rule.keep) {
			f.session = append(f.session, k.name)
		} else {
			open = append(open, k)
		}
	}
	rand.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	for _, k := range open[:min(len(open), mostFetches-2)] {
		with, err := c.ask(ctx, &k)
		if err != nil {
			return err
		}
		f.tried = append(f.tried, k.name)
		if compare(bare.body, with.body, bare.id, with.id).reason != "" {
			f.changed = append(f.changed, k.name)
		}
	}
	if len(f.changed) > 0 || len(open) > len(f.tried) {
		f.session = nil // it may be another
	}
	if len(f.changed) == 0 && len(open) > len(f.tried) {
		return errUntold
	}
	return nil
}

var (
	errUntold  = errors.New("too many cookies to tell which changes the page")
	errNoPage  = errors.New("no page without cookies")
	errTooLong = errors.New("too large")
)

// ask asks for the page with one cookie or none.
func (c *sample) ask(ctx context.Context, with *cookie) (*answer, error) {
	if t := time.NewTimer(time.Second / time.Duration(c.rule.rate)); true {
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		case <-t.C:
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.s.cfg.Timeout)
	defer cancel()
	x := &c.x
	x.ID = c.s.cfg.NewID()
	x.Start, x.Tries, x.Forwarding = time.Now(), 0, true
	a := &answer{id: x.ID.String()}
	x.Out.Set(message.XRequestId, []byte(a.id))
	x.Out.Del(message.Cookie)
	if with != nil {
		x.Out.Set(message.Cookie, []byte(with.name+"="+with.value))
	}
	end := message.Outcome{}
	defer func() { x.End(end) }()
	c.s.fetched.Inc()
	resp, err := c.s.send.Serve(ctx, x)
	if err != nil {
		end.Err = err
		return nil, fmt.Errorf("%w: no answer", errNoPage)
	}
	end.Status = resp.Status
	if resp.Status != 200 || !bytes.HasPrefix(bytes.ToLower(resp.Get(message.ContentType)), []byte("text/html")) || resp.Has(message.ContentEncoding) {
		if resp.Body != nil {
			resp.Body.Close(errNoPage)
		}
		return nil, fmt.Errorf("%w: status %d", errNoPage, resp.Status)
	}
	a.sets, a.forbids = setsOf(&resp.Fields), forbids(&resp.Fields)
	a.body, err = read(ctx, resp, c.s.cfg.MaxBody)
	end.Err = err
	return a, err
}

// read reads a page.
func read(ctx context.Context, resp *message.Response, limit int) ([]byte, error) {
	if resp.Body == nil {
		return bytes.Clone(resp.Bytes), nil
	}
	var out []byte
	for {
		b, err := resp.Body.Next(ctx)
		if out = append(out, b...); len(out) > limit {
			resp.Body.Close(errTooLong)
			return nil, errTooLong
		}
		if err == io.EOF {
			resp.Body.Close(nil)
			return out, nil
		}
		if err != nil {
			resp.Body.Close(err)
			return nil, errNoPage
		}
	}
}

// setsOf is the name of the first cookie that an answer sets.
func setsOf(f *message.Fields) string {
	name, _, _ := strings.Cut(string(f.Get(message.SetCookie)), "=")
	if len(name) > maxWhere {
		name = name[:maxWhere]
	}
	return strings.TrimSpace(name)
}

// forbids says whether the origin does not want an answer stored by shared caches.
func forbids(f *message.Fields) bool {
	for i := f.Next(message.CacheControl, 0); i >= 0; i = f.Next(message.CacheControl, i+1) {
		_, _, v := f.At(i)
		for d := range bytes.SplitSeq(bytes.ToLower(v), []byte{','}) {
			if d = bytes.TrimSpace(d); string(d) == "no-store" || string(d) == "private" {
				return true
			}
		}
	}
	return false
}
