package semantics

import (
	"time"

	"github.com/relais-edge/relais/internal/http/message"
)

// Policy is what a site's owner decides beside the fields.
type Policy struct {
	DefaultTTL, MaxTTL   time.Duration // 0: none
	WhileRevalidate      time.Duration // where the answer gives no stale-while-revalidate
	IfError              time.Duration // where the answer gives no stale-if-error
	Disconnected         time.Duration // how long an answer may be used stale while no origin answers
	CookiesByAnyLifetime bool          // store an answer with Set-Cookie by any explicit lifetime
	Targets              []Target      // RFC 9213 section 2.2
	// ExplicitOnly stores only what has a lifetime that the answer itself gives.
	ExplicitOnly bool
}

// Exchange is a request and the answer to it, as they are judged.
type Exchange struct {
	Authorization bool // the request has the field
	Status        int
	Fields        *message.Fields
	Sent, Came    time.Time // when the request was sent, and when the head of the answer came
	// Part says that a 206 has one part that can be stored (PartOf).
	Part bool
	// Post says that the request was a POST (RFC 9110 section 9.3.3).
	Post bool
	// Most, when not 0, is for how long the answer may be fresh here: it stands in for a better one.
	Most time.Duration
}

// Life says how long an answer lives.
type Life struct {
	Lifetime   time.Duration // freshness lifetime, RFC 9111 section 4.2.1
	InitialAge time.Duration // corrected_initial_age, section 4.2.3
	While, Err time.Duration // how long it may be used stale (RFC 5861), 0 where it may not
	// Disconnected is how long it may be used stale while no origin answers (section 4.2.4).
	Disconnected time.Duration
	Came         int64 // response_time in nanoseconds since 1970
	NoCache      bool  // never used without validation, section 5.2.2.4
	NoStale      bool  // never used stale, section 4.2.4
	Immutable    bool  // not validated while fresh for a mere reload, RFC 8246 section 2
	// Aged says that the answer came with an Age: it was in another cache.
	Aged bool
}

var setCookie = []byte("set-cookie")

// maxHeuristic bounds a lifetime that nobody gave.
const maxHeuristic = 24 * time.Hour

// Why an answer is not stored.
const (
	Stored        = ""
	NotStatus     = "status"          // the status code is not one that is stored
	NotAllowed    = "no-store"        // no-store
	NotShared     = "private"         // private
	NotAuthorized = "authorization"   // the request has credentials and the answer does not allow it
	NotCookie     = "set-cookie"      // Set-Cookie without a lifetime meant for shared caches
	NotVary       = "vary"            // Vary: *
	NotUseful     = "no-lifetime"     // neither lifetime nor validator: it could never be used
	NotMethod     = "method"          // the answer to a POST without an explicit lifetime
	NotExplicit   = "ambiguous-path"  // servers may read the path in different ways, and the answer gives no lifetime
	NotUnderstood = "must-understand" // must-understand with a status we do not know
)

// Judge says whether a shared cache may store the answer to a GET, HEAD or POST (RFC 9111 section 3),
// and how long it lives. Why is Stored, or the first reason against.
func Judge(e *Exchange, c *Control, p *Policy) (life Life, why string) {
	f := e.Fields
	if e.Status < 200 || e.Status == 206 && !e.Part || e.Status == 304 || e.Status > 599 {
		return life, NotStatus
	}
	if c.Has(MustUnderstand) {
		if !understood(e.Status) {
			return life, NotUnderstood
		}
	} else if c.Has(NoStore) {
		return life, NotAllowed
	}
	if c.Has(Private) {
		return life, NotShared
	}
	if e.Authorization && !c.Has(Public|MustRevalidate|SMaxAge) {
		return life, NotAuthorized
	}
	explicit := c.Has(MaxAge|SMaxAge) || !c.Targeted && f.Has(message.Expires)
	if f.Has(message.SetCookie) && !cookieAllowed(c, p, explicit) && !(c.Has(FieldLists) && c.Restricted(f, setCookie)) {
		return life, NotCookie
	}
	if HasVaryStar(f) {
		return life, NotVary
	}
	if e.Post && (!explicit || e.Status != 200) {
		return life, NotMethod
	}
	if !explicit && !c.Has(Public) && !heuristic(e.Status) {
		return life, NotStatus
	}
	if p.ExplicitOnly && !explicit {
		return life, NotExplicit
	}
	life = lifeOf(e, c, p, explicit)
	usable := !life.NoCache && life.Lifetime > life.InitialAge || life.While > 0 || life.Err > 0
	if !usable && !f.Has(message.ETag) && !f.Has(message.LastModified) {
		return life, NotUseful
	}
	return life, Stored
}

// cookieAllowed says whether an answer with Set-Cookie may be shared. RFC 9111 section 7.3
// leaves it to the origin's directives; a framework that adds both Set-Cookie and max-age
// must not hand one buyer's session to the next, so that only a directive for shared caches counts.
func cookieAllowed(c *Control, p *Policy, explicit bool) bool {
	return c.Has(Public|SMaxAge) || c.Targeted && c.Has(MaxAge) || p.CookiesByAnyLifetime && explicit
}

func lifeOf(e *Exchange, c *Control, p *Policy, explicit bool) Life {
	date := e.Came.Unix()
	if d, ok := dateOf(e.Fields, message.Date, e.Came); ok {
		date = d
	}
	life := Life{
		Lifetime:  lifetime(e, c, p, date, explicit),
		Came:      e.Came.UnixNano(),
		NoCache:   c.Has(NoCache),
		NoStale:   c.Has(NoCache | MustRevalidate | ProxyRevalidate | SMaxAge),
		Immutable: c.Has(Immutable),
	}
	if p.MaxTTL > 0 {
		life.Lifetime = min(life.Lifetime, p.MaxTTL)
	}
	life.InitialAge, life.Aged = initialAge(e, date)
	if e.Most > 0 {
		life.Lifetime = min(life.Lifetime, life.InitialAge+e.Most)
	}
	life.While, life.Err = staleWindows(c, p, life.NoStale || life.Lifetime == 0)
	if !life.NoStale && life.Lifetime > 0 {
		life.Disconnected = p.Disconnected
	}
	return life
}

// lifetime is RFC 9111 section 4.2.1: the first of s-maxage, max-age, Expires less Date, what
// the owner gives, and the heuristic.
func lifetime(e *Exchange, c *Control, p *Policy, date int64, explicit bool) time.Duration {
	switch {
	case c.Has(SMaxAge):
		return seconds(c.SMaxAge)
	case c.Has(MaxAge):
		return seconds(c.MaxAge)
	case explicit:
		return expires(e, date)
	case p.DefaultTTL > 0 && defaultable(e.Status) && !e.Fields.Has(message.SetCookie):
		return p.DefaultTTL
	case heuristic(e.Status) || c.Has(Public):
		modified, ok := dateOf(e.Fields, message.LastModified, e.Came)
		if !ok || modified >= date {
			return 0
		}
		return min(seconds(min(date-modified, MaxDelta))/10, maxHeuristic)
	}
	return 0
}

// expires is Expires less Date; any line that is not a date is in the past (RFC 9111 section
// 5.3), of several the earliest counts.
func expires(e *Exchange, date int64) time.Duration {
	least := int64(MaxDelta)
	for i := e.Fields.Next(message.Expires, 0); i >= 0; i = e.Fields.Next(message.Expires, i+1) {
		_, _, v := e.Fields.At(i)
		at, ok := ParseDate(v, e.Came)
		if !ok {
			return 0
		}
		least = min(least, at-date)
	}
	return seconds(max(least, 0))
}

// initialAge is corrected_initial_age of RFC 9111 section 4.2.3. Dates have whole seconds, so
// that the apparent age has too.
func initialAge(e *Exchange, date int64) (age time.Duration, aged bool) {
	value, aged := ParseAge(e.Fields)
	corrected := seconds(value) + max(e.Came.Sub(e.Sent), 0)
	apparent := seconds(min(max(e.Came.Unix()-date, 0), MaxDelta))
	return max(apparent, corrected), aged
}

// staleWindows says how long the answer may be used stale. What forbids it wins (RFC 9111
// section 4.2.4), except that the s-maxage of an answer does not undo the windows which the
// same answer gives: its author meant them, and no other reading gives them a meaning.
//
// The policy's windows make a lifetime longer and never one where there was none: an answer
// without a lifetime, or with one of zero, may be one visitor's own page.
func staleWindows(c *Control, p *Policy, noStale bool) (while, err time.Duration) {
	if c.Has(NoCache | MustRevalidate | ProxyRevalidate) {
		return 0, 0
	}
	if c.Has(StaleWhileRevalidate) {
		while = seconds(c.While)
	} else if !noStale {
		while = p.WhileRevalidate
	}
	if c.Has(StaleIfError) {
		err = seconds(c.Err)
	} else if !noStale {
		err = p.IfError
	}
	return while, err
}

// ParseAge reads Age (RFC 9111 section 5.1): the first member of the first line; what is not
// a number is as if it were not there.
func ParseAge(f *message.Fields) (age int64, ok bool) {
	v := f.Get(message.Age)
	for i, c := range v {
		if c == ',' {
			v = v[:i]
			break
		}
	}
	return deltaSeconds(trim(v))
}

// dateOf reads the first line of a date field.
func dateOf(f *message.Fields, id message.ID, now time.Time) (int64, bool) {
	v := f.Get(id)
	if v == nil {
		return 0, false
	}
	return ParseDate(v, now)
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// Age is current_age of RFC 9111 section 4.2.3.
func (l *Life) Age(now time.Time) time.Duration {
	return l.InitialAge + time.Duration(max(now.UnixNano()-l.Came, 0))
}

// Use is what a request may have of a stored answer.
type Use uint8

// The uses.
const (
	Fresh      Use = iota // use it
	Stale                 // use it stale: the request allows it
	Background            // use it stale and validate it meanwhile
	Validate              // it is stale: ask the origin first
	Refresh               // it is fresh, but the request wants the origin asked first
)

// Use judges a stored answer for a request with the directives of c (RFC 9111 sections 4.2, 5.2.1).
func (l *Life) Use(c *Control, now time.Time) Use {
	age := l.Age(now)
	left := l.Lifetime - age
	if l.NoCache {
		return Validate
	}
	if c.Has(NoCache) || c.Has(MaxAge) && age > seconds(c.MaxAge) {
		// A client that also takes stale answers does not by that take older ones.
		switch {
		case left <= 0:
			return Validate
		case l.Immutable && !c.Has(NoCache):
			return Fresh // a reload needs no validation (RFC 8246 section 2.1)
		}
		return Refresh
	}
	if left > 0 {
		if c.Has(MinFresh) && left < seconds(min(c.MinFresh, MaxDelta)) {
			return Refresh
		}
		return Fresh
	}
	if c.Has(MinFresh) {
		return Validate
	}
	if -left < l.While {
		return Background
	}
	if c.Has(MaxStale) && !l.NoStale && (c.MaxStale == AnyStale || -left <= seconds(c.MaxStale)) {
		return Stale
	}
	return Validate
}

// UsableOnError says whether the answer may be used stale in place of an error (RFC 5861 section 4).
func (l *Life) UsableOnError(now time.Time) bool {
	return l.Err > 0 && l.Age(now)-l.Lifetime < l.Err
}

// UsableDisconnected says whether the answer may be used stale because no origin answered at all (RFC
// 9111 section 4.2.4).
func (l *Life) UsableDisconnected(now time.Time) bool {
	return l.Disconnected > 0 && l.Age(now)-l.Lifetime < l.Disconnected
}

// heuristic says whether a lifetime may be guessed for the status (RFC 9110 section 15.1).
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// defaultable says whether the owner's default lifetime holds for the status.
func defaultable(status int) bool {
	switch status {
	case 200, 203, 206, 301, 404, 410:
		return true
	}
	return false
}

// understood says whether the rules for the status are known here (RFC 9111 section 5.2.2.3).
func understood(status int) bool {
	switch status {
	case 200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 307, 308,
		400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 415, 417, 421, 422, 425, 426, 428, 429, 431, 451,
		500, 501, 502, 503, 504, 505, 511:
		return true
	}
	return false
}

// ErrorStatus says whether the status is an error in the sense of RFC 5861 section 4. One above 599 is
// invalid and counts as 500 (RFC 9110 section 15).
func ErrorStatus(status int) bool {
	return status == 500 || status >= 502 && status <= 504 || status > 599
}
