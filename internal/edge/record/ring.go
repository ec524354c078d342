package record

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Ring keeps the last requests so that they can be explained. Those that somebody may ask
// about (refused, failed, spilled, tried again, or judged by a rule in shadow) have a place of
// their own, so that a flood of good answers does not wash them away. Its memory is bounded:
// texts are cut and query strings are not kept.
//
// Of the others about as many as have a place are kept each second: on a busy edge they would
// be washed away in milliseconds, so keeping them all would cost a twentieth of a request and
// explain nothing. What was kept stays for about a second.
type Ring struct {
	notable, ordinary track
	pace              pace
	where             Where
}

// Where gives the country of an address, empty when it is not known, and its autonomous system, 0 when it is not.
type Where func(a netip.Addr) (country string, asn uint32)

// Locate has explanations say where visitors are. Call it before the ring is used.
func (r *Ring) Locate(w Where) { r.where = w }

type track struct {
	slots []slot
	next  atomic.Uint64
}

// pace counts what was kept in the current second: the second, then 20 bits of the count.
type pace struct{ v atomic.Int64 }

const paceBits = 20

// take says whether one more may be kept.
func (p *pace) take(second, most int64) bool {
	v := p.v.Load()
	if v>>paceBits != second {
		return p.v.CompareAndSwap(v, second<<paceBits|1)
	}
	if v&(1<<paceBits-1) >= most {
		return false
	}
	p.v.Add(1)
	return true
}

type slot struct {
	mu     sync.Mutex
	used   bool
	id     stage.RequestID
	start  time.Time
	took   time.Duration
	client [16]byte
	is4    bool
	proto  message.Proto
	text   []byte // method, host, path
	cut    [3]int // ends of the three
	end    message.Outcome
	err    *stage.Error
	site   string
	route  string
	class  stage.Class
	score  uint8
	bot    string
	ja4    string
	cache  string
	pool   string
	tier   string
	origin string
	spill  string
	full   string
	tries  int
	// revision is that of the documents in service at the end.
	revision string
	marks    []stage.Mark
	// connection is what a service's connection has in place of a request; nil for requests.
	connection *Service
}

// minPace is how many ordinary requests a second are kept at least, so that a small ring on a
// quiet edge keeps the last ones.
const minPace = 256

// maxText bounds each text of a slot.
const maxText = 512

// NewRing returns a ring of n notable requests and an eighth as many others. The latter are
// few so that writing them stays in the processor's cache.
func NewRing(n int) *Ring {
	return &Ring{notable: track{slots: make([]slot, n)}, ordinary: track{slots: make([]slot, max(1, n/8))}}
}

func (r *Ring) add(x *stage.Exchange, o message.Outcome, took time.Duration, revision string) {
	t := &r.ordinary
	if notable(x, o) {
		t = &r.notable
	} else if !r.pace.take(x.Now().Unix(), max(minPace, int64(len(t.slots)))) {
		return
	}
	s := &t.slots[(t.next.Add(1)-1)%uint64(len(t.slots))]
	s.mu.Lock()
	s.keep(x, o, took)
	s.revision = revision
	s.mu.Unlock()
}

func (s *slot) keep(x *stage.Exchange, o message.Outcome, took time.Duration) {
	s.connection = nil
	s.used, s.id, s.start, s.took, s.proto, s.end, s.err = true, x.ID, x.Start, took, x.In.Proto, o, x.Failure
	s.client, s.is4 = x.Client.As16(), x.Client.Is4()
	s.text = s.text[:0]
	for i, t := range [...][]byte{x.In.MethodName(), x.In.Authority(), x.In.Path()} {
		s.text = append(s.text, t[:min(len(t), maxText)]...)
		s.cut[i] = len(s.text)
	}
	s.site, s.route = "", ""
	if x.Site != nil {
		s.site = string(x.Site.Key)
	}
	if x.Route != nil {
		s.route = x.Route.Name
	}
	s.class, s.cache, s.pool, s.tier, s.origin, s.tries = x.Visitor.Class, x.CacheStatus, x.Pool, x.Tier, x.Origin, x.Tries
	s.spill, s.full = x.Spill, x.Full
	s.score, s.bot, s.ja4 = x.Visitor.Score, x.Visitor.Bot, ""
	if c := x.In.Conn; c != nil && c.TLS != nil {
		s.ja4 = c.TLS.JA4
	}
	s.marks = append(s.marks[:0], x.Trail.Marks()...)
}

// addRefused keeps bytes that were no acceptable request, whose page shows an id too. They have a slot of
// those that pass quickly, as a flood of nonsense is to wash away nothing that a visitor asks about.
func (r *Ring) addRefused(conn *message.Conn, id stage.RequestID, status int, code, detail string) {
	t := &r.ordinary
	s := &t.slots[(t.next.Add(1)-1)%uint64(len(t.slots))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.id, s.start, s.took, s.connection = true, id, time.Now(), 0, nil
	s.client, s.is4, s.proto = netip.IPv6Unspecified().As16(), false, message.HTTP11
	if conn != nil && conn.Client.IsValid() {
		s.client, s.is4 = conn.Client.As16(), conn.Client.Is4()
	}
	s.text, s.cut, s.end = s.text[:0], [3]int{}, message.Outcome{Status: status}
	s.err = &stage.Error{Code: code, Side: stage.SideClient, Status: status, Err: errors.New(detail)}
	s.site, s.route, s.class, s.cache, s.revision = "", "", stage.Anonymous, "", ""
	s.pool, s.tier, s.origin, s.tries, s.spill, s.full = "", "", "", 0, "", ""
	s.marks = append(s.marks[:0], stage.Mark{Stage: "protocol", Code: "refused", Detail: detail})
}
