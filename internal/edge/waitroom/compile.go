package waitroom

import (
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/cookie"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	names   []string // of all its cookies
	headers []string
}

// policy is a compiled WaitingRoom. It does not change, but for its pools, which the room's lock guards.
type policy struct {
	gate    stage.Gate
	room    *room
	keys    *seal.Keys
	clock   *seal.Clock
	cookie  string
	header  string
	hash    uint64
	always  bool
	begins  time.Time
	ends    time.Time
	most    float64 // visitors a second; 0 is no bound
	session int64   // seconds
	refresh int     // seconds
	tickets budget.Rate
	pages   pages
	pools   []bundle.Key
	metrics [outCount]observe.Counter
}

// Compile implements stage.Compiler.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	if len(site.Spec.Rooms) == 0 {
		return nil, nil
	}
	pt := &part{routes: make([]*policy, len(site.Routes))}
	named := map[string]*policy{}
	for i := range site.Routes {
		r := site.Routes[i].Spec
		if r.WaitingRoom == "" {
			continue
		}
		p := named[r.WaitingRoom]
		if p == nil {
			spec := site.Spec.Rooms[r.WaitingRoom]
			if spec == nil {
				return nil, fmt.Errorf("waitroom: site %s names WaitingRoom %s, which the bundle does not hold", site.Key, r.WaitingRoom)
			}
			var err error
			if p, err = s.compile(site, r.WaitingRoom, spec); err != nil {
				return nil, fmt.Errorf("waitroom: site %s: WaitingRoom %s: %w", site.Key, r.WaitingRoom, err)
			}
			named[r.WaitingRoom] = p
			pt.names = append(pt.names, p.cookie)
			if p.header != "" {
				pt.headers = append(pt.headers, p.header)
			}
		}
		pt.routes[i] = p
		p.follow(site.Organization, r)
	}
	for _, p := range named {
		p.room.mu.Lock()
		p.room.policy = p
		p.room.mu.Unlock()
	}
	return pt, nil
}

// follow adds the pools of a route to those whose room the line follows.
func (p *policy) follow(organization string, r *v1.Route) {
	add := func(pool string) {
		if key := bundle.NewKey(organization, pool); pool != "" && len(p.pools) < maxPools && !slices.Contains(p.pools, key) {
			p.pools = append(p.pools, key)
		}
	}
	add(r.Pool)
	for i := range r.Pools {
		add(r.Pools[i].Pool)
	}
}

func (s *Stage) compile(site *snapshot.Site, name string, spec *v1.WaitingRoomSpec) (*policy, error) {
	p := &policy{
		gate: stage.NewGate(spec.Protection), clock: s.clock, cookie: spec.Cookie, header: spec.Header,
		hash: budget.Fold([]byte(string(site.Key) + "\x00" + name)), always: spec.When == "always",
		most: float64(spec.NewPerMinute) / 60, session: int64(spec.Session.Std() / time.Second),
		refresh: int(spec.Refresh.Std() / time.Second), tickets: budget.PerMinute(spec.TicketsPerMinute),
		pages: compilePages(&spec.Page),
	}
	if spec.From != nil {
		p.begins = spec.From.Time
	}
	if spec.Until != nil {
		p.ends = spec.Until.Time
	}
	var secrets [][]byte
	switch {
	case spec.Secret != "":
		for _, t := range append([]string{spec.Secret}, spec.PreviousSecrets...) {
			if len(t) < seal.MinSecret {
				return nil, fmt.Errorf("secret has %d bytes; give at least %d", len(t), seal.MinSecret)
			}
			secrets = append(secrets, []byte(t))
		}
	case s.cfg.Secrets == nil:
		return nil, errors.New("secret is missing, and this edge has no directory to keep one in; give at least 16 bytes")
	default:
		var err error
		if secrets, err = s.cfg.Secrets.Secrets("room"); err != nil {
			return nil, err
		}
	}
	p.keys = seal.New("relais waiting room 1\x00"+string(site.Key)+"\x00"+name, secrets...)
	for i, o := range outcomes {
		p.metrics[i] = s.metrics.requests.With(string(site.Key), name, o)
	}
	var err error
	p.room, err = s.room(site, name)
	return p, err
}

// room finds or makes the room of a document, with the line that it had before a restart.
func (s *Stage) room(site *snapshot.Site, name string) (*room, error) {
	key := string(site.Key) + "\x00" + name
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rooms[key]; r != nil {
		return r, nil
	}
	if len(s.rooms) >= MaxRooms {
		return nil, fmt.Errorf("this edge has %d waiting rooms already", MaxRooms)
	}
	r := &room{key: key, line: newLine(), waiting: s.metrics.waiting.With(string(site.Key), name)}
	if err := r.load(s.cfg.Dir); err != nil && s.cfg.Logger != nil {
		s.cfg.Logger.Warn(err.Error())
	}
	s.rooms[key] = r
	return r, nil
}

// inHours says whether a room that is always on is on.
func (p *policy) inHours(now time.Time) bool {
	return !now.Before(p.begins) && (p.ends.IsZero() || now.Before(p.ends))
}

// carries says whether x has something that may be a ticket.
func (p *policy) carries(x *stage.Exchange) bool {
	if p.header != "" && (len(x.In.Lookup(p.header)) == seal.TextLen(payloadLen) || len(x.In.Lookup(p.header)) == seal.TextLen(oldLen)) {
		return true
	}
	c := cookie.Read(&x.In.Fields, p.cookie)
	return c.Next() != nil
}

// read finds the ticket of x: in the field for programs, else in a cookie.
func (p *policy) read(x *stage.Exchange) (t ticket, ok bool) {
	now := p.clock.Expiry(x.Start)
	if p.header != "" {
		if v := x.In.Lookup(p.header); v != nil {
			if t, ok = parse(v, p.keys, now); ok {
				return t, true
			}
		}
	}
	c := cookie.Read(&x.In.Fields, p.cookie)
	for v := c.Next(); v != nil; v = c.Next() {
		if t, ok = parse(v, p.keys, now); ok {
			return t, true
		}
	}
	return ticket{}, false
}

// write gives a ticket: in the field for programs, else as a cookie.
func (p *policy) write(x *stage.Exchange, f *message.Fields, t *ticket, asked bool, maxAge int64) {
	var memory [128]byte
	text := t.append(memory[:0], p.keys)
	if asked {
		f.SetLine(p.header, text)
		return
	}
	cookie.Set(f, p.cookie, text, maxAge, x.In.Secure)
}
