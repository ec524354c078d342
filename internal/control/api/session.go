package api

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// Sessions keep who logged in.
type Sessions interface {
	// Open gives a text that stands for the user until the time; whoever shows it is he.
	Open(ctx context.Context, actor tenant.Actor, source netip.Addr, agent string) (text string, until time.Time, err error)
	// Resume finds out whose it is, or auth.ErrToken.
	Resume(ctx context.Context, text string) (tenant.Actor, error)
	// End forgets it.
	End(ctx context.Context, text string) error
}

// Bounds of MemorySessions.
const (
	sessionLife = 12 * time.Hour
	sessionIdle = time.Hour
	maxSessions = 10_000
	maxOfUser   = 16
)

// MemorySessions are sessions of one process: they end with it. Only hashes of their texts are kept.
type MemorySessions struct {
	clock func() time.Time
	mu    sync.Mutex
	of    map[string]*session
}

type session struct {
	actor    tenant.Actor
	end, use time.Time
}

// NewMemorySessions makes them; clock nil is time.Now.
func NewMemorySessions(clock func() time.Time) *MemorySessions {
	if clock == nil {
		clock = time.Now
	}
	return &MemorySessions{clock: clock, of: map[string]*session{}}
}

// Open implements Sessions. A user's seventeenth ends the one that was used longest ago, and so does one beyond 10,000.
func (m *MemorySessions) Open(_ context.Context, actor tenant.Actor, _ netip.Addr, _ string) (string, time.Time, error) {
	text := auth.NewSecret()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	own, oldest, oldestOwn := 0, "", ""
	for k, s := range m.of {
		switch {
		case s.ended(now):
			delete(m.of, k)
			continue
		case oldest == "" || s.use.Before(m.of[oldest].use):
			oldest = k
		}
		if s.actor.String() == actor.String() {
			own++
			if oldestOwn == "" || s.use.Before(m.of[oldestOwn].use) {
				oldestOwn = k
			}
		}
	}
	if own >= maxOfUser {
		delete(m.of, oldestOwn)
	} else if len(m.of) >= maxSessions {
		delete(m.of, oldest)
	}
	s := &session{actor, now.Add(sessionLife), now}
	m.of[auth.HashSecret(text)] = s
	return text, s.end, nil
}

func (s *session) ended(now time.Time) bool {
	return !s.end.After(now) || now.Sub(s.use) > sessionIdle
}

// Resume implements Sessions.
func (m *MemorySessions) Resume(_ context.Context, text string) (tenant.Actor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, now := m.of[auth.HashSecret(text)], m.clock()
	if s == nil || s.ended(now) {
		return tenant.Actor{}, auth.ErrToken
	}
	s.use = now
	return s.actor, nil
}

// End implements Sessions.
func (m *MemorySessions) End(_ context.Context, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, auth.HashSecret(text))
	return nil
}
