package deadline

import (
	"syscall"
	"time"
)

// Pace is the least speed at which an answer must be taken: some of it within Limit, and Rate bytes
// a second on average beyond that; 0 is no rate.
//
// How fast a client reads cannot be seen all the time. Its side opens its window in steps: a TCP
// socket when two segments or a sixteenth of its buffer are free (RFC 9293 section 3.8.6.2.2), many
// clients of HTTP/2 and HTTP/3 when half of a window has been read. Until then one who reads slowly
// looks like one who does not read. So a silence may last as long as such a step does at the
// least rate; and MostSilence times Limit at most, as a step can be large.
type Pace struct {
	Limit time.Duration
	Rate  int64
}

const (
	// MostSilence is how many times Limit a silence may last.
	MostSilence = 20
	// stepShare is the part of what a TCP client's buffer holds that it reads before it opens its
	// window: a sixteenth on Linux of a buffer that it reckons twice as large.
	stepShare = 8
	// stepSegments is how many of our segments a step may hold: two of the client's, and Linux sends
	// segments of half a window to who has less than two of them free.
	stepSegments = 4
	// maxStep bounds what is reckoned with.
	maxStep = 1 << 40
	// paceTick is how often a slow client is looked at, in milliseconds.
	paceTick = 1000
)

// Silence is how long no byte may be taken, when the client opens its window in steps of so many
// bytes: Limit at least.
func (p Pace) Silence(step int64) time.Duration {
	if p.Rate <= 0 || step <= 0 {
		return p.Limit
	}
	ms := min(step, maxStep) * 1000 / p.Rate
	return max(p.Limit, min(MostSilence*p.Limit, time.Duration(ms)*time.Millisecond))
}

// taken is what a client has of what was written to it over TCP.
type taken struct {
	bytes   int64 // acknowledged since the connection began
	segment int64 // bytes that a full segment holds
	owed    bool  // it has something to acknowledge that it had room for
	mute    int64 // milliseconds since it acknowledged anything, be it nothing new
}

// Watch is how fast a client takes what is being written to it over TCP. What the kernel has taken
// is not what the client has: its buffer may hold minutes of a slow line. So the bytes count that
// the client has acknowledged. The zero Watch is ready.
type Watch struct {
	begun int64 // the write that is watched
	base  int64 // bytes acknowledged when the watch began
	last  int64 // when it was looked at last,
	moved int64 // the time at which that had grown,
	seen  int64 // and the time of that look
}

// Late says whether the write that began at begun has lasted too long at now, both in milliseconds.
// Raw is nil where nothing can be learned from the socket; then, and elsewhere than on Linux, a
// write may last for p.Limit.
func (w *Watch) Late(raw syscall.RawConn, p Pace, begun, now int64) bool {
	lasts, limit := now-begun, p.Limit.Milliseconds()
	look := min(paceTick, limit)
	if lasts < look {
		return false // most writes end at once
	}
	if p.Rate <= 0 || raw == nil {
		return lasts > limit
	}
	if w.begun == begun && (lasts <= limit || now-w.seen < look) {
		return false
	}
	t, ok := takenBy(raw)
	if !ok {
		return lasts > limit
	}
	if w.begun != begun {
		*w = Watch{begun: begun, base: t.bytes, last: t.bytes, moved: now, seen: now}
		return false
	}
	w.seen = now
	if t.bytes > w.last {
		w.last, w.moved = t.bytes, now
	}
	return w.late(t, p, now)
}

// late judges what was seen after p.Limit.
func (w *Watch) late(t taken, p Pace, now int64) bool {
	silence := p.Silence(max(stepSegments*t.segment, w.base/stepShare)).Milliseconds()
	if now-w.moved >= silence || t.owed && t.mute >= p.Limit.Milliseconds() {
		return true // or there is nobody any more
	}
	// Time, in which less was taken than the least rate asks for, and what of it is forgiven.
	return now-w.begun-(t.bytes-w.base)*1000/p.Rate >= silence
}
