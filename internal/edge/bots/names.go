package bots

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Resolver asks DNS; *net.Resolver does.
type Resolver interface {
	// LookupAddr returns the names of an address.
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	// LookupNetIP returns the addresses of a name; network is ip.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Bounds of what is asked and kept.
const (
	maxNames     = 16 << 10
	maxQuestions = 256
	askers       = 4
	nameLife     = time.Hour
	badLife      = 10 * time.Minute
	askTime      = 3 * time.Second
	maxAnswers   = 8 // names of one address that are asked for
)

// verdict is what DNS says of an address.
type verdict uint8

const (
	nameUnknown verdict = iota
	nameGood
	nameBad
)

// names knows the names of addresses that claim to be a program's. It asks beside the requests.
type names struct {
	resolver  Resolver
	questions chan question

	mu   sync.Mutex
	list map[subject]known
}

// subject is what was asked: an address, and whose it should be.
type subject struct {
	addr netip.Addr
	bot  string
}

type question struct {
	subject
	domains []string
}

type known struct {
	verdict verdict
	until   time.Time
}

func newNames(r Resolver) *names {
	return &names{resolver: r, questions: make(chan question, maxQuestions), list: map[subject]known{}}
}

// ask says what is known, and has the rest asked.
func (n *names) ask(a netip.Addr, v *verified) verdict {
	if n.resolver == nil {
		return nameBad
	}
	s := subject{a, v.name}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok := n.list[s]
	if ok && now.Before(k.until) {
		return k.verdict
	}
	select {
	case n.questions <- question{s, v.domains}:
		n.keep(s, known{k.verdict, now.Add(2 * askTime)}) // so that it is asked once; what was known holds meanwhile
	default: // too many are asked for
	}
	return k.verdict
}

// keep keeps an answer, in the place of any other when there are too many. The lock is held.
func (n *names) keep(s subject, k known) {
	if _, there := n.list[s]; !there && len(n.list) >= maxNames {
		for other := range n.list { // Go's order is as good as random
			delete(n.list, other)
			break
		}
	}
	n.list[s] = k
}

func (n *names) run(ctx context.Context) error {
	if n.resolver == nil {
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case q := <-n.questions:
					v, life := n.look(ctx, q)
					n.mu.Lock()
					n.keep(q.subject, known{v, time.Now().Add(life)})
					n.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// look asks for the names of an address, and for the addresses of those that end as they should. An error of DNS is
// no verdict.
func (n *names) look(ctx context.Context, q question) (verdict, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	list, err := n.resolver.LookupAddr(ctx, q.addr.String())
	if err != nil && ctx.Err() != nil {
		return nameUnknown, askTime
	}
	for _, host := range list[:min(len(list), maxAnswers)] {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if !below(host, q.domains) {
			continue
		}
		addrs, err := n.resolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a.Unmap() == q.addr {
				return nameGood, nameLife
			}
		}
	}
	if ctx.Err() != nil {
		return nameUnknown, askTime
	}
	return nameBad, badLife
}

// below says whether a name is one of the domains or under one.
func below(host string, domains []string) bool {
	for _, d := range domains {
		if host == d || strings.HasSuffix(host, "."+d) {
			return true
		}
	}
	return false
}
