package hub

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/api"
	"github.com/relais-edge/relais/internal/control/purge"
	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	entries "github.com/relais-edge/relais/internal/edge/cache/purge"
)

// Fleet is what the API asks of the hub.
func (h *Hub) Fleet() api.Fleet { return offered{h} }

type offered struct{ *Hub }

// tokenLife is how long somebody has to type a join token.
const tokenLife = time.Hour

// Pops implements api.Fleet.
func (o offered) Pops(ctx context.Context) (list []api.PopStatus, err error) {
	err = o.cfg.Store.View(ctx, func(r *store.Reader) error {
		known, err := rollout.Pops(ctx, r)
		if err != nil {
			return err
		}
		seen := map[string]rollout.PopStatus{}
		for _, p := range known {
			seen[p.Pop] = p
		}
		book, err := rules{}.Read(ctx, r)
		if err != nil {
			return err
		}
		for i := range book.Pops {
			p := seen[book.Pops[i].Name]
			s := api.PopStatus{Name: book.Pops[i].Name, Seen: p.Seen, Revision: int64(p.Position.Revision), Healthy: p.Alive && p.Current && len(p.Refused) == 0 && p.Problem == "", Problem: p.Problem}
			switch {
			case p.Seen.IsZero():
				s.Problem = "was never heard of"
			case !p.Alive:
				s.Problem = "is not heard of"
			case p.Pinned != "":
				s.Problem = "stays where it is, " + p.Pinned
			case len(p.Refused) > 0:
				s.Problem = fmt.Sprintf("refuses %d bundles, such as that of %s: %s", len(p.Refused), p.Refused[0].Organization, p.Refused[0].Why)
			case !p.Current && s.Problem == "":
				s.Problem = "does not serve yet what it should"
			}
			list = append(list, s)
		}
		return nil
	})
	return list, err
}

// Enrol implements api.Fleet.
func (o offered) Enrol(ctx context.Context, actor tenant.Actor, pop string) (string, time.Time, error) {
	t, err := o.NewToken(ctx, actor.String(), pop, tokenLife)
	return t.String(), time.Now().Add(tokenLife), err
}

// RevokePop implements api.Fleet.
func (o offered) RevokePop(ctx context.Context, actor tenant.Actor, pop, reason string) error {
	return o.Revoke(ctx, actor.String(), pop, reason)
}

// RolloutEvents implements api.Fleet.
func (o offered) RolloutEvents(ctx context.Context, org string, after int64, limit int) (list []api.RolloutEvent, err error) {
	err = o.cfg.Store.View(ctx, func(r *store.Reader) error {
		events, err := rollout.Events(ctx, r, org, after, limit)
		for i := range events {
			e := &events[i]
			list = append(list, api.RolloutEvent{Number: e.Seq, Time: e.Time, Kind: string(e.Kind), Revision: e.Revision, Text: e.Text})
		}
		return err
	})
	return list, err
}

// Rollouts implements api.Fleet: what waits, what moves, and what is served or was undone.
func (o offered) Rollouts(ctx context.Context, org string) (list []api.Rollout, err error) {
	var s *rollout.State
	err = o.cfg.Store.View(ctx, func(r *store.Reader) error {
		s, err = rollout.Of(ctx, r, org)
		return err
	})
	if err != nil {
		return nil, err
	}
	id := func(revision int64) string { return fmt.Sprint("r", revision) }
	if w := s.Waiting; w != nil {
		list = append(list, api.Rollout{ID: id(w.Revision), Revision: w.Revision, State: "waiting", Reason: w.Told, Changed: w.Since})
	}
	if m := s.Moving; m != nil {
		x := api.Rollout{ID: id(m.Revision), Revision: m.Revision, State: "going", Ring: fmt.Sprint(m.Ring + 1), Pops: len(m.Pops), Of: m.Of, Until: m.Until, Reason: s.Paused, Changed: m.Entered}
		if s.Paused != "" {
			x.State = "held"
		}
		list = append(list, x)
	}
	if r := s.Refused; r != nil {
		list = append(list, api.Rollout{ID: id(r.Revision), Revision: r.Revision, State: "undone", Reason: r.Why, Changed: r.Time})
	}
	if s.Stable.Revision > 0 {
		list = append(list, api.Rollout{ID: id(s.Stable.Revision), Revision: s.Stable.Revision, State: "done"})
	}
	return list, nil
}

// Steer implements api.Fleet.
func (o offered) Steer(ctx context.Context, actor tenant.Actor, org, id, action, reason string) error {
	do := map[string]rollout.Do{"hold": rollout.DoPause, "continue": rollout.DoResume, "undo": rollout.DoAbort, "expedite": rollout.DoExpedite}[action]
	if do == "" {
		return fmt.Errorf("%w: a rollout is held, continued, undone or expedited", store.ErrInvalid)
	}
	_, err := o.cfg.Store.Update(ctx, store.Change{Author: actor.String(), Reason: reason}, func(tx *store.Tx) error {
		s, err := rollout.Of(ctx, &tx.Reader, org)
		if err != nil {
			return err
		}
		moving, waiting := s.Moving != nil && id == fmt.Sprint("r", s.Moving.Revision), s.Waiting != nil && id == fmt.Sprint("r", s.Waiting.Revision)
		if !moving && !waiting {
			return fmt.Errorf("rollout %s: %w", id, store.ErrNotFound)
		}
		return rollout.Give(ctx, tx, org, rollout.Order{Do: do, By: actor.String(), Reason: reason})
	})
	return err
}

// Purge implements api.Fleet.
func (o offered) Purge(ctx context.Context, actor tenant.Actor, org string, p api.PurgeBody, wait time.Duration) (api.Receipt, error) {
	order := &purge.Order{Author: actor.String(), Organization: org, Site: p.Site}
	var err error
	if order.Entries, err = purgeEntries(org, &p); err != nil {
		return api.Receipt{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	r, err := o.purges.Purge(ctx, order)
	switch {
	case errors.Is(err, purge.ErrInvalid):
		return api.Receipt{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	case errors.Is(err, purge.ErrOften), errors.Is(err, purge.ErrBusy):
		return api.Receipt{}, fmt.Errorf("%w: %w", store.ErrBusy, err)
	case err != nil:
		return api.Receipt{}, err
	}
	if wait > 0 {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if now, _ := o.purges.Wait(limited, *r, nil); now != nil {
			r = now // who does not obey in time stands in the receipt
		}
	}
	return receipt(r), nil
}

// Receipt implements api.Fleet. A purge of somebody else is none.
func (o offered) Receipt(ctx context.Context, org string, number int64) (api.Receipt, error) {
	r, err := o.purges.Receipt(ctx, uint64(number))
	if err == nil && r.Organization != org {
		err = fmt.Errorf("%w: purge %d", store.ErrNotFound, number)
	}
	if err != nil {
		return api.Receipt{}, err
	}
	return receipt(r), nil
}

func receipt(r *purge.Receipt) api.Receipt {
	out := api.Receipt{Number: int64(r.Last), Time: r.Time, Done: r.Done(), Blind: r.Blind, Pops: []api.Ack{}}
	for _, s := range r.Pops {
		out.Pops = append(out.Pops, api.Ack{Pop: s.Pop, State: string(s.State), At: s.Time, Seen: s.Seen})
	}
	return out
}

// purgeEntries reads what somebody wants purged.
func purgeEntries(org string, p *api.PurgeBody) (list []entries.Entry, err error) {
	named := len(p.URLs) + len(p.Tags) + len(p.Hosts) + len(p.Prefixes)
	switch {
	case p.Site == "" && named > 0:
		return nil, errors.New("say of which site: all keys begin with it")
	case p.All && named > 0:
		return nil, errors.New("all is everything: name nothing else beside it")
	case !p.All && named == 0:
		return nil, errors.New("say what to purge: URLs, prefixes, tags, hosts, or all")
	case p.All && p.Site == "":
		return []entries.Entry{{Kind: entries.Organization, Site: org, Soft: p.Soft}}, nil
	case p.All:
		return []entries.Entry{{Kind: entries.Site, Soft: p.Soft}}, nil
	}
	for _, text := range p.URLs {
		host, path, query, err := address(text)
		if err != nil {
			return nil, err
		}
		e := entries.Entry{Kind: entries.URL, Host: host, Value: path, Soft: p.Soft}
		if p.AnyQuery {
			e.Kind = entries.Path
		} else if query != "" {
			e.Value += "?" + query
		}
		list = append(list, e)
	}
	for _, text := range p.Prefixes {
		host, path, query, err := address(text)
		if err != nil || query != "" {
			return nil, errors.Join(err, fmt.Errorf("%q: a prefix is /path or host/path, without query", text))
		}
		list = append(list, entries.Entry{Kind: entries.Prefix, Host: host, Value: path, Soft: p.Soft})
	}
	for _, t := range p.Tags {
		list = append(list, entries.Entry{Kind: entries.Tag, Value: t, Soft: p.Soft})
	}
	for _, text := range p.Hosts {
		list = append(list, entries.Entry{Kind: entries.Host, Host: strings.ToLower(text), Soft: p.Soft})
	}
	return list, nil
}

// address reads https://host/path?query, host/path?query and /path?query.
func address(text string) (host, path, query string, err error) {
	full := text
	switch {
	case strings.HasPrefix(text, "/"):
		full = "https://any.invalid" + text
	case !strings.Contains(text, "://"):
		full = "https://" + text
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.User != nil {
		return "", "", "", fmt.Errorf("%q is no URL", text)
	}
	if !strings.HasPrefix(text, "/") {
		host = strings.ToLower(u.Hostname())
	}
	if path = u.EscapedPath(); path == "" {
		path = "/"
	}
	return host, path, u.RawQuery, nil
}
