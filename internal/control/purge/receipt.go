package purge

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
)

// State is how a PoP stands to a purge.
type State string

// The states.
const (
	// Obeys: nothing that was purged is served there any more.
	Obeys State = "obeys"
	// Waiting: it is heard of, and does not obey yet.
	Waiting State = "waiting"
	// Away: it is not heard of. It may serve visitors all the same, and obeys as soon as it is connected again.
	Away State = "away"
)

// PopState is a line of a receipt.
type PopState struct {
	Pop   string `json:"pop"`
	State State  `json:"state"`
	// Time from which it was heard to obey; nil where that is not known any more, or not the case.
	Time *time.Time `json:"time,omitempty"`
	// Seen is when it was heard of last.
	Seen time.Time `json:"seen"`
}

// Receipt says what became of a purge.
type Receipt struct {
	Organization string `json:"organization"`
	Author       string `json:"author"`
	// Epoch and the numbers from First to Last.
	Epoch uint64 `json:"epoch"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Time of the commit.
	Time time.Time `json:"time"`
	// Pops in the order of their names.
	Pops []PopState `json:"pops"`
	// Blind: this control plane has no connection to the bus, or not for long enough to have heard of every PoP.
	Blind bool `json:"blind,omitempty"`
}

// Done says whether all PoPs obey that are heard of.
func (r *Receipt) Done() bool {
	return !r.Blind && !slices.ContainsFunc(r.Pops, func(p PopState) bool { return p.State == Waiting })
}

const (
	// away is after how long without a heartbeat, of which there is one a second, a PoP counts as away.
	away = 4 * time.Second
	// settle is how long a control plane hears before it has heard of every PoP: who was not is away.
	settle = away
	// together is how long Wait lets changes gather: it looks at every PoP each time.
	together = 5 * time.Millisecond
	// maxMarks bounds the acknowledgements of a PoP whose times are known.
	maxMarks = 256
)

// place is what is known of a PoP.
type place struct {
	at    fleet.PurgePosition
	time  time.Time // of at
	seen  time.Time
	lower int    // heartbeats in a row that say less than at
	marks []mark // of the epoch of at, in order
	after uint64 // when numbers up to it came to be obeyed is not known
	kept  ack    // what is in the store of it
}

// mark is when a PoP was heard to obey a number.
type mark struct {
	number uint64
	time   time.Time
}

func (p *place) alive(now time.Time) bool { return now.Sub(p.seen) < away }

// obeys says whether it does, at the newest position. Numbers go on over epochs, and who is in the newest
// epoch purged all that was before it.
func (p *place) obeys(newest fleet.PurgePosition, number uint64) bool {
	return p.at.Epoch == newest.Epoch && p.at.Number >= number && p.at.Number <= newest.Number
}

// since is when it was first heard to.
func (p *place) since(number uint64) *time.Time {
	i := sort.Search(len(p.marks), func(i int) bool { return p.marks[i].number >= number })
	if i == len(p.marks) || number <= p.after {
		return nil
	}
	t := p.marks[i].time.UTC()
	return &t
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fill writes into a receipt how things stand now.
func (s *Service) fill(r *Receipt) {
	up, _ := s.cfg.Bus.Connected()
	connected := isClosed(up)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Blind = !connected || s.hearing.IsZero() || now.Sub(s.hearing) < settle
	r.Pops = make([]PopState, 0, len(s.pops))
	for name, p := range s.pops {
		x := PopState{Pop: name, State: Waiting, Seen: p.seen.UTC()}
		switch {
		case p.obeys(s.newest, r.Last):
			x.State, x.Time = Obeys, p.since(r.Last)
		case !p.alive(now):
			x.State = Away
		}
		r.Pops = append(r.Pops, x)
	}
	slices.SortFunc(r.Pops, func(a, b PopState) int { return strings.Compare(a.Pop, b.Pop) })
}

// Receipt tells which PoPs obey the purge of a number, or store.ErrNotFound where the log has it no more, or never had. Who
// shows it finds out before whether it may be shown: it names its organization.
func (s *Service) Receipt(ctx context.Context, number uint64) (*Receipt, error) {
	var list []row
	var h head
	err := s.cfg.Store.View(ctx, func(r *store.Reader) (err error) {
		if h, _, err = readHead(ctx, r); err != nil {
			return err
		}
		list, err = store.Rows(ctx, r, "read a purge", scanRow, columns+"WHERE number = $1", int64(number))
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: purge %d", store.ErrNotFound, number)
	}
	s.mu.Lock()
	s.advance(h.position())
	s.mu.Unlock()
	x := &list[0]
	r := &Receipt{Organization: x.organization, Author: x.author, Epoch: x.epoch, First: x.number, Last: x.number, Time: x.time}
	s.fill(r)
	return r, nil
}

// Wait waits until all PoPs obey that are heard of, and gives the receipt as it then is; with the error of ctx as it is
// when that ends. Told, if not nil, is called with the receipt at the beginning and whenever a PoP changed its state. ErrBusy
// says that too many wait already.
func (s *Service) Wait(ctx context.Context, r Receipt, told func(*Receipt)) (*Receipt, error) {
	s.mu.Lock()
	full := s.waiters >= MaxWaiters
	if !full {
		s.waiters++
	}
	s.mu.Unlock()
	if full {
		return nil, fmt.Errorf("%w for receipts: %d are the most", ErrBusy, MaxWaiters)
	}
	defer func() {
		s.mu.Lock()
		s.waiters--
		s.mu.Unlock()
	}()
	// That one is not heard of any more comes with no message.
	look := time.NewTicker(away / 8)
	defer look.Stop()
	var before []PopState
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		now := r
		s.fill(&now)
		if told != nil && (before == nil || !slices.EqualFunc(before, now.Pops, func(a, b PopState) bool { return a.Pop == b.Pop && a.State == b.State })) {
			told(&now)
		}
		before = now.Pops
		if now.Done() {
			return &now, nil
		}
		select {
		case <-ctx.Done():
			return &now, context.Cause(ctx)
		case <-changed:
			pause(ctx, together)
		case <-look.C:
		}
	}
}
