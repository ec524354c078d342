package api

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// limiter lets each key do so much a minute, evenly with a burst (GCRA). Its table is of a fixed size: when it is full of
// keys that are in use, the rest share one.
type limiter struct {
	perMinute int
	most      int
	clock     func() time.Time

	mu  sync.Mutex
	due map[string]time.Time // when the key's budget is whole again
}

func newLimiter(perMinute, most int, clock func() time.Time) *limiter {
	return &limiter{perMinute: perMinute, most: most, clock: clock, due: map[string]time.Time{}}
}

// others is the key of those for whom there is no row.
const others = "~others"

// take gives how many more may come at once, and how long to wait where it is none.
func (l *limiter) take(key string) (left int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	each := time.Minute / time.Duration(l.perMinute)
	at, known := l.due[key]
	if !known && len(l.due) >= l.most {
		for k, t := range l.due {
			if !t.After(now) {
				delete(l.due, k)
			}
		}
		if len(l.due) >= l.most {
			key = others
			at = l.due[key]
		}
	}
	if at.Before(now) {
		at = now
	}
	next := at.Add(each)
	if over := next.Sub(now) - time.Minute; over > 0 {
		return 0, over
	}
	l.due[key] = next
	return int((time.Minute - next.Sub(now)) / each), 0
}

// allow takes one, writes the RateLimit fields (draft-ietf-httpapi-ratelimit-headers) and gives the problem where there is
// none left.
func (l *limiter) allow(h http.Header, policy, key string) *Problem {
	left, wait := l.take(key)
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=60", policy, l.perMinute))
	if wait == 0 {
		h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=60", policy, left))
		return nil
	}
	seconds := int(wait/time.Second) + 1
	h.Set("RateLimit", fmt.Sprintf("%q;r=0;t=%d", policy, seconds))
	p := newProblem(http.StatusTooManyRequests, "rate", "Too many requests", fmt.Sprintf("%d a minute are allowed", l.perMinute))
	p.wait = seconds
	return p
}
