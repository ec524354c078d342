package stage

import (
	"net/netip"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
)

// Slot is the place of a stage's part in a site and of its memory in an exchange.
type Slot int

// Slots is the number of slots, more than there are stages: an unused one costs 16 bytes of an exchange.
const Slots = 24

// Class tells visitors apart by how near they are to an order.
type Class uint8

// The classes.
const (
	Anonymous Class = iota // nothing is known
	Known                  // came back with a valid visitor cookie
	Protected              // has a basket: admitted first, limited last
)

// String returns the class as a log shows it.
func (c Class) String() string { return [...]string{"anonymous", "known", "protected"}[c] }

// Step says how near to an order a request is, by its method and path.
type Step uint8

// The steps.
const (
	StepBrowse   Step = iota // looks
	StepBasket               // fills a basket
	StepCheckout             // is about to pay
	StepOrder                // places the order
)

// String returns the step as a log shows it.
func (s Step) String() string { return [...]string{"browse", "basket", "checkout", "order"}[s] }

// Visitor is who sends a request.
type Visitor struct {
	Class Class
	// Step is that of the request by its path alone, which anybody can write; Near is what may be acted on. Reached is
	// the farthest that the visitor's answers came to.
	Step, Reached Step
	// Confirmed says that the origin itself said so, not only a path.
	Confirmed bool
	// Ordered says that this request's answer ended a basket in an order, which each basket does once.
	Ordered bool
	// Key tells visitors apart: from the signed cookie, else from the client address.
	Key uint64
	// Source tells addresses apart (IPv4, IPv6 /64) and Network their neighbourhoods (IPv4 /24, IPv6 /48). Both are 0
	// where the address says nothing of who it is: of callbacks, and where there is none.
	Source, Network uint64
	// Callback says that it is a server of payment or logistics that proved who it is.
	Callback bool
	// Tier holds the visitor's basket; empty when none does.
	Tier string
	// Background says that nobody waits for the answer: it is work of the edge's own, which gets a place at an
	// origin only while there are many to spare, no second copy and no retry.
	Background bool
	// Score says how much like a program the visitor looks, 0 to 100; marks of the stage that counts say why.
	Score uint8
	// Bot is the name of the verified program that the visitor is, such as a search engine's; empty for none.
	Bot string
}

// Exempt says that the visitor is never challenged and never queued: it has a basket, or is a callback of
// payment or logistics that counts as if it had, or a verified bot.
func (v *Visitor) Exempt() bool { return v.Class == Protected || v.Bot != "" }

// Near is the step of the request as far as it may put one visitor before another: who has proved no basket is
// nobody at a checkout.
func (v *Visitor) Near() Step {
	if v.Class != Protected {
		return StepBrowse
	}
	return v.Step
}

// Measures are what the detector of floods decided about a request.
type Measures struct {
	// Suspect says that the request looks like a part of an attack: what is stored may answer it, but nobody
	// else waits for what it fetches, and nothing of that is stored.
	Suspect bool
	// Stale says that a stored answer that could stand in for a failing origin is to be used rather than
	// that an origin is asked.
	Stale bool
	// Pardoned says that a person spared this address from limits.
	Pardoned bool
}

// Target is an origin as the chain's last handler knows it. That handler makes it and alone
// looks inside; balance chooses one for each try.
type Target interface{ Address() string }

// Exchange is one request on its way through the stages. It is used again for the next
// request, so nothing may keep it, or what it lends, after its end.
type Exchange struct {
	ID    RequestID
	Start time.Time
	// In is the request as it came. Stages do not change it, but that a picture's form is taken off its query to be Variant, and
	// that the cache takes fields off that no key holds, and writes those that its policy makes normal: the origin is
	// to see what the key says.
	In *message.Request
	// Out is the request as it is sent to the origin; good once Forwarding is true.
	Out        message.Request
	Forwarding bool
	// Client is the visitor's address, as far as it can be trusted. PeerTrusted says that the
	// connection comes from one of the listener's trusted proxies.
	Client      netip.Addr
	PeerTrusted bool
	// ClientField is the name of the field in which trusted proxies tell the visitor's address, when it
	// is one that only this listener knows; empty otherwise.
	ClientField string
	// Host is the authority's host in lower case, without port; an IPv6 address has no brackets.
	Host []byte
	// Path is the normalised path (RFC 3986 section 6.2.2), on which all rules work; those that restrict work on
	// Merged, too.
	Path []byte

	Site    *snapshot.Site
	Route   *snapshot.Route
	Visitor Visitor
	// Pool is the name of the route's pool that was chosen; Tier and Origin where the request
	// went last; Tries how often it was sent.
	Pool, Tier, Origin string
	Tries              int
	// Spilled says that the request went to a tier that was not its first choice.
	Spilled bool
	// Spill is why the request is not in the pool's first tier, or not in that of its basket, as a code of the
	// balance stage; empty when it is.
	Spill string
	// Full says what became of a request for which no tier of its pool had room: waited, stale, room or page;
	// empty when there was room.
	Full string
	// StandIn says that a stored answer stands in when there is no room, so that nobody needs to wait for it.
	StandIn bool
	// Measures against a flood.
	Measures Measures
	// Noted says that a stage decided something that a person may ask about, such as what a
	// rule in shadow would have done.
	Noted bool
	// Failure is the error that the answer is the page of; nil when there is none.
	Failure *Error
	// Target is where a try goes, and Deadline when the head of its answer must be there; zero
	// means no limit. Balance sets both for each try.
	Target   Target
	Deadline time.Time
	// Wait is how long an origin may take for the head of its answer from the end of a request whose body
	// is sent as it comes; zero leaves it to the last handler.
	Wait time.Duration
	// Sent says that the last try's request may have reached the origin, so that only one
	// whose repeat does no harm may be tried again. The last handler sets it.
	Sent bool
	// Shared says that the answer may be kept for other visitors, so that the last handler takes no
	// risk of it being another request's. The cache sets it.
	Shared bool
	// Variant names the form of the resource that is to be answered, where a stage makes several of one original: it is
	// part of the key under which the answer is stored, and no part of the URL by which it is purged. It
	// has no '?' and no space; nil is the resource itself.
	Variant []byte
	// Brief, when not 0, is how long the answer may be stored at most: it stands in for one that could not be
	// made now. A stage below the cache sets it.
	Brief time.Duration
	// CacheStatus is what the cache says of itself, such as hit or miss.
	CacheStatus string
	Trail       Trail
	// Response is memory for the answer that a stage makes; one at a time.
	Response message.Response
	// Local is what each stage keeps in an exchange, from one use to the next, by slot.
	Local [Slots]any
	// Verdict is what the firewall found; it is filled for an exchange that is replayed only.
	Verdict *Verdict

	lap    time.Duration   // since Start, when the clock was last read
	seed   uint64          // of chances, when x is replayed; else 0
	idText []byte          // of ID, once it was asked for
	forked message.Request // In of a fork
	host   []byte
	path   []byte
	merged []byte // of path; empty where it is the same
	form   []byte
	query  []byte // of Narrow
	narrow bool
	enders []message.Ender
}

// Reset makes x ready for the next request and keeps its memory.
func (x *Exchange) Reset() {
	x.Out.Reset()
	x.Response.Reset()
	x.Trail.reset()
	x.ID, x.Start, x.In, x.Forwarding, x.Client, x.PeerTrusted = RequestID{}, time.Time{}, nil, false, netip.Addr{}, false
	x.ClientField = ""
	x.Host, x.Path, x.Site, x.Route, x.Visitor = nil, nil, nil, nil, Visitor{}
	x.merged = x.merged[:0]
	x.Pool, x.Tier, x.Origin, x.Tries, x.CacheStatus = "", "", "", 0, ""
	x.idText = x.idText[:0]
	x.Full, x.StandIn = "", false
	x.Measures, x.narrow = Measures{}, false
	x.Spill, x.Spilled, x.Noted, x.Failure, x.lap = "", false, false, nil, 0
	x.seed, x.Verdict = 0, nil
	x.Target, x.Deadline, x.Wait, x.Sent, x.Shared = nil, time.Time{}, 0, false, false
	x.Variant, x.Brief = nil, 0
	clear(x.enders)
	x.enders = x.enders[:0]
}

// IDText lends ID as text.
func (x *Exchange) IDText() []byte {
	if len(x.idText) == 0 {
		x.idText = x.ID.AppendText(x.idText)
	}
	return x.idText
}

// SetHost keeps a copy of host as x.Host.
func (x *Exchange) SetHost(host []byte) {
	x.host = append(x.host[:0], host...)
	x.Host = x.host
}

// SetPath keeps a copy of path as x.Path.
func (x *Exchange) SetPath(path []byte) { x.KeepPath(append(x.PathMemory(), path...)) }

// PathMemory lends empty memory to build a path in, for KeepPath.
func (x *Exchange) PathMemory() []byte { return x.path[:0] }

// KeepPath makes a path that was built in PathMemory x.Path.
func (x *Exchange) KeepPath(path []byte) {
	x.path, x.Path = path, path
	x.merged = mergeSlashes(x.merged[:0], path)
}

// Merged lends Path with each run of slashes as one, the way many servers read it; nil where Path has no run. A
// path that was not given to KeepPath has none.
func (x *Exchange) Merged() []byte {
	if len(x.merged) == 0 {
		return nil
	}
	return x.merged
}

// mergeSlashes appends a normalised path with runs of slashes merged to dst, and nothing where there is no run.
// Encoded slashes count within a run of two or more; one alone is a character of its segment.
func mergeSlashes(dst, path []byte) []byte {
	last := 0
	for i := 0; i < len(path); {
		end, n := i, 0
		for {
			if w := slash(path[end:]); w > 0 {
				end, n = end+w, n+1
				continue
			}
			break
		}
		if n > 1 {
			dst = append(append(dst, path[last:i]...), '/')
			last = end
		}
		i = max(end, i+1)
	}
	if last > 0 {
		dst = append(dst, path[last:]...)
	}
	return dst
}

// slash is the length of the slash that b begins with, encoded or not; 0 when it begins with none.
func slash(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == '/':
		return 1
	case len(b) > 2 && b[0] == '%' && b[1] == '2' && b[2] == 'F':
		return 3
	}
	return 0
}

// SetVariant keeps a copy of form as x.Variant.
func (x *Exchange) SetVariant(form []byte) {
	x.form = append(x.form[:0], form...)
	x.Variant = x.form
}

// QueryMemory lends empty memory to build a query in, for Narrow.
func (x *Exchange) QueryMemory() []byte { return x.query[:0] }

// Narrow makes a query that was built in QueryMemory the one that counts from here on: for the cache, and for
// what is sent to the origin. An empty one is none.
func (x *Exchange) Narrow(query []byte) { x.query, x.narrow = query, true }

// Query lends the query that counts, which is that of In unless Narrow made another.
func (x *Exchange) Query() []byte {
	if x.narrow {
		return x.query
	}
	return x.In.Query()
}

// SetQuery makes a copy of rest the query that counts. An empty one is none.
func (x *Exchange) SetQuery(rest []byte) {
	switch {
	case x.narrow:
		x.query = append(x.query[:0], rest...)
	case len(rest) == 0:
		x.In.ClearQuery()
	default:
		x.In.SetQuery(rest)
	}
}

// Narrowed says whether Narrow was called.
func (x *Exchange) Narrowed() bool { return x.narrow }

// Inform sends an interim answer to the client at once.
func (x *Exchange) Inform(status int, f *message.Fields) {
	if x.In.Control != nil {
		x.In.Control.Inform(status, f)
	}
}

// MayBlock says that what follows may take long.
func (x *Exchange) MayBlock() {
	if x.In.Control != nil {
		x.In.Control.MayBlock()
	}
}

// OnEnd has e told once, after the last byte, the end of the tunnel or the abort. The last
// added is told first.
func (x *Exchange) OnEnd(e message.Ender) { x.enders = append(x.enders, e) }

// End implements message.Ender: it tells everybody that asked. The protocol calls it once.
func (x *Exchange) End(o message.Outcome) {
	for i := len(x.enders) - 1; i >= 0; i-- {
		x.enders[i].End(o)
	}
	clear(x.enders)
	x.enders = x.enders[:0]
}

// ForkInto makes f an exchange for work that outlives its client (a cache fill, a
// revalidation): the same request in memory of its own, without body, client and enders.
// The caller calls f.End when the work is done.
func (x *Exchange) ForkInto(f *Exchange) {
	f.Reset()
	f.ID, f.Start, f.lap, f.seed, f.Client, f.PeerTrusted, f.ClientField = x.ID, x.Start, x.lap, x.seed, x.Client, x.PeerTrusted, x.ClientField
	f.forked.CopyFrom(x.In)
	f.forked.Body, f.forked.Trailer, f.forked.Control = nil, nil, nil
	f.forked.ContentLength = 0
	if x.narrow {
		if f.forked.ClearQuery(); len(x.query) > 0 {
			f.forked.SetQuery(x.query)
		}
	}
	f.In = &f.forked
	f.SetHost(x.Host)
	f.SetPath(x.Path)
	if x.Variant != nil {
		f.SetVariant(x.Variant)
	}
	f.Site, f.Route, f.Visitor, f.Shared = x.Site, x.Route, x.Visitor, true
}

// Mark is one decision of a stage.
type Mark struct {
	Stage  string
	Code   string        // a token, such as pass, hit, spill
	Detail string        // for a person; only where there is something to say
	At     time.Duration // since the exchange's start
}

// maxMarks bounds a trail; what is beyond is counted.
const maxMarks = 24

// Trail is what the stages decided, in order.
type Trail struct {
	marks   [maxMarks]Mark
	n       int
	Dropped int
}

func (t *Trail) reset() {
	clear(t.marks[:t.n])
	t.n, t.Dropped = 0, 0
}

// Marks lends the decisions.
func (t *Trail) Marks() []Mark { return t.marks[:t.n] }

// Lap reads the clock and returns the time since Start. Whatever took time (a wait, an
// evaluation, an origin's answer) calls it when it is done, and before it marks that. The
// stages in between cost less than reading a clock does, so they share its last reading.
func (x *Exchange) Lap() time.Duration {
	if x.seed == 0 {
		x.lap = time.Since(x.Start)
	}
	return x.lap
}

// Now is the time of the last Lap, or of Start.
func (x *Exchange) Now() time.Time { return x.Start.Add(x.lap) }

// Mark notes a decision, with the time of the last Lap.
func (x *Exchange) Mark(stage, code string) { x.MarkDetail(stage, code, "") }

// MarkDetail notes a decision and what a person should know of it, with the time of the last Lap.
func (x *Exchange) MarkDetail(stage, code, detail string) {
	t := &x.Trail
	if t.n == maxMarks {
		t.Dropped++
		return
	}
	t.marks[t.n] = Mark{stage, code, detail, x.lap}
	t.n++
	if strings.HasPrefix(code, "would-") {
		x.Noted = true
	}
}
