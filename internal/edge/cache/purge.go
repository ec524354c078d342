package cache

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// Receipt says what number a purge got. From Holds on no answer that it names and that was asked for
// earlier is used, and none that is on its way is stored.
type Receipt struct {
	Number uint64    `json:"number"`
	Holds  time.Time `json:"holds"`
	// Purged are the entries as they are in the log.
	Purged []purge.Entry `json:"purged"`
	// Kept is false when the log could not be written: the purge holds until a restart.
	Kept bool `json:"kept"`
}

// MaxPurges bounds the entries of one call of Purge.
const MaxPurges = 1000

// Purge makes entries hold, and then keeps them in the log. Site is where they are for, or nil for kinds
// without a URL: the query of a URL is brought to what the site's policies count of it. The error is of
// a wrong entry, and then nothing was purged, or of the log, and then the receipt says that all hold.
func (s *Stage) Purge(ctx context.Context, site *snapshot.Site, entries ...purge.Entry) (*Receipt, error) {
	list := s.told(entries, func(string) *snapshot.Site { return site })
	if len(list) == 0 || len(list) > MaxPurges {
		return nil, errors.New("a purge names 1 to 1000 things")
	}
	return s.purge(ctx, list)
}

// PurgeOf is Purge for entries of several sites, however many, with one sync of the disk. Find gives the site that URLs
// are of.
func (s *Stage) PurgeOf(ctx context.Context, find func(key string) *snapshot.Site, entries []purge.Entry) (*Receipt, error) {
	return s.purge(ctx, s.told(entries, find))
}

// told are entries as the table tells them apart.
func (s *Stage) told(entries []purge.Entry, find func(key string) *snapshot.Site) (list []purge.Entry) {
	for _, e := range entries {
		switch e.Kind {
		case purge.URL:
			list = s.reduced(list, find(e.Site), e)
			continue
		case purge.Tag:
			e.Value = purge.Fold(e.Value)
		}
		list = append(list, e)
	}
	return list
}

func (s *Stage) purge(ctx context.Context, list []purge.Entry) (*Receipt, error) {
	for i := range list {
		if err := list[i].Check(); err != nil {
			return nil, err
		}
	}
	r := &Receipt{}
	for i := range list {
		n, err := s.apply(&list[i])
		if err != nil {
			return nil, err
		}
		r.Number = n
	}
	r.Purged, r.Holds = list, s.cfg.Clock()
	s.m.purges.Add(float64(len(list)))
	if s.cfg.Witness != nil {
		s.cfg.Witness.Purged(list)
	}
	err := s.cfg.Purges.Sync(ctx, r.Number)
	r.Kept = err == nil
	return r, err
}

// Seal refuses purges from now on: another process has taken over, and its answers are what counts. It gets the
// disk as well.
func (s *Stage) Seal() {
	s.purging.Lock()
	defer s.purging.Unlock()
	if !s.sealed {
		s.sealed = true
		close(s.yield)
	}
}

var errSealed = errors.New("another process has taken over; ask again on a new connection")

// apply numbers an entry and makes it hold.
func (s *Stage) apply(e *purge.Entry) (uint64, error) {
	s.purging.Lock()
	defer s.purging.Unlock()
	if s.sealed {
		return 0, errSealed
	}
	e.Time = s.cfg.Clock()
	n, err := s.cfg.Purges.Append(*e)
	if err != nil {
		return 0, err
	}
	e.Number = n
	s.purges.Apply(e)
	return n, nil
}

// reduced appends e for each way in which the site's policies count its query.
func (s *Stage) reduced(list []purge.Entry, site *snapshot.Site, e purge.Entry) []purge.Entry {
	path, query, _ := bytes.Cut([]byte(e.Value), []byte{'?'})
	begin := len(list)
	for _, k := range s.keyersOf(site) {
		e.Value = string(k.appendTarget(nil, path, query))
		if !slices.ContainsFunc(list[begin:], func(o purge.Entry) bool { return o.Value == e.Value }) {
			list = append(list, e)
		}
	}
	if len(list) == begin {
		list = append(list, e)
	}
	return list
}

func (s *Stage) keyersOf(site *snapshot.Site) []*keyer {
	if site == nil || int(s.cfg.Slot) >= len(site.Parts) {
		return nil
	}
	if p, _ := site.Parts[s.cfg.Slot].(*part); p != nil {
		return p.keyers
	}
	return nil
}

// replay applies what the log kept. What cannot be read counts as purged.
func (s *Stage) replay() {
	st := s.cfg.Purges.State()
	s.purges.Begin(st.Base, 0)
	for n := st.Base; ; {
		list, err := s.cfg.Purges.After(n, 4096)
		if err != nil {
			s.purges.Begin(st.Last, 0)
		}
		for i := range list {
			s.purges.Apply(&list[i])
			n = list[i].Number
		}
		if len(list) == 0 {
			break
		}
	}
	s.purges.Begin(0, st.Last)
}

// Run keeps the store, and writes to the log what no purge waited for, until ctx ends, and then the rest.
func (s *Stage) Run(ctx context.Context) error {
	kept := make(chan error, 1)
	go func() { kept <- s.runTiers(ctx) }()
	err := s.runPurges(ctx)
	return errors.Join(<-kept, err)
}

func (s *Stage) runPurges(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return s.cfg.Purges.Sync(context.WithoutCancel(ctx), s.purges.Last())
		case <-t.C:
			err := s.cfg.Purges.Sync(ctx, s.purges.Last())
			if err != nil && ctx.Err() == nil {
				s.m.unkept.Inc()
				if !failing {
					s.cfg.Logger.Error("purges hold, but are not kept: a restart would forget them", "err", err, "mend", "look at the disk of the data folder")
				}
			}
			failing = err != nil
		}
	}
}

// placeOf is where what is under a key is, for purges.
func placeOf(x *stage.Exchange, key []byte, aliased bool) purge.Place {
	p := purge.Place{Host: x.Host, Path: x.Path, AnyQuery: aliased}
	if !aliased {
		_, p.Query, _ = bytes.Cut(key, []byte{'?'})
		p.Query, _, _ = bytes.Cut(p.Query, []byte{' '}) // a variant is purged with its URL
	}
	return p
}

// purged is what purges say of an object that x may have: none when nothing newer than it names it.
func purged(m *purge.Mark, o *object, at *purge.Place) (v purge.Verdict) {
	last := m.Last()
	seen := o.seen.Load()
	if seen >= last {
		return v
	}
	if m.Since(seen) {
		v = m.Place(at)
	}
	if len(o.tags) > 0 {
		v = v.And(m.Tags(o.tags))
	}
	if v.Hard <= o.born && v.Soft <= max(o.born, o.softened) {
		o.seen.Store(last)
		return purge.Verdict{}
	}
	if v.Soft <= max(o.born, o.softened) {
		v.Soft = 0
	}
	return v
}

// softLife is the lifetime that ends with the soft purge of v.
func softLife(o *object, v purge.Verdict) softness {
	age := time.Duration(0)
	if v.SoftAt > 0 {
		age = o.Age(time.Unix(int64(v.SoftAt), 0))
	}
	return softness{v.Soft, min(o.Lifetime, age)}
}

// outdated says whether a purge came since a flight began, for who has its key. O is its answer, or nil.
func (fl *flight) outdated(x *stage.Exchange, o *object) bool {
	m := fl.rule.mark
	if m.Last() <= fl.born {
		return false
	}
	var v purge.Verdict
	if m.Since(fl.born) {
		at := placeOf(x, fl.key, fl.aliased)
		v = m.Place(&at)
	}
	if o != nil && len(o.tags) > 0 {
		v = v.And(m.Tags(o.tags))
	}
	return max(v.Hard, v.Soft) > fl.born
}

// spent says whether a purge came since o was asked for, so that it is not stored: a stale one would
// take the place of what was fetched since.
func spent(m *purge.Mark, x *stage.Exchange, to *home, o *object) bool {
	at := placeOf(x, to.key, to.rule != nil)
	v := purged(m, o, &at)
	return max(v.Hard, v.Soft) > o.born
}
