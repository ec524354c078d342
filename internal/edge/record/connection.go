package record

import (
	"net/netip"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// Connection is a connection or UDP session of a service that is over.
type Connection struct {
	ID      stage.RequestID
	Start   time.Time
	Took    time.Duration
	Client  netip.Addr
	Service string // key
	Proto   string // tcp, tls or udp
	Host    string // by SNI
	Pool    string
	Tier    string
	Origin  string
	Tries   int
	Spilled bool
	Spill   string // why
	// Received is from the client, Sent to it.
	Received, Sent int64
	// Code says why it ended when that was not the wish of one of the two, or why it never began;
	// Cause tells more.
	Code  string
	Cause string
}

// Connection records a connection: a line in the access log, and a place in the ring.
func (r *Recorder) Connection(c *Connection) {
	if r.ring != nil {
		r.ring.addConnection(c)
	}
	if r.log == nil {
		return
	}
	l := line{buf: make([]byte, 0, 512)}
	l.time(`{"time":`, c.Start)
	l.str(`,"id":`, c.ID.String())
	l.str(`,"client":`, c.Client.String())
	l.str(`,"proto":`, c.Proto)
	l.str(`,"host":`, c.Host)
	l.num(`,"received":`, c.Received)
	l.num(`,"bytes":`, c.Sent)
	l.millis(`,"ms":`, c.Took)
	l.str(`,"service":`, c.Service)
	if c.Tries > 0 {
		l.str(`,"pool":`, c.Pool)
		l.str(`,"tier":`, c.Tier)
		l.str(`,"origin":`, c.Origin)
		l.str(`,"spill":`, c.Spill)
	}
	if c.Tries > 1 {
		l.num(`,"tries":`, int64(c.Tries))
	}
	l.str(`,"code":`, c.Code)
	l.str(`,"cause":`, c.Cause)
	r.log.Write(l.end())
}

// addConnection keeps a connection so that it can be explained.
func (r *Ring) addConnection(c *Connection) {
	t := &r.ordinary
	if c.Code != "" || c.Spilled || c.Tries > 1 {
		t = &r.notable
	}
	s := &t.slots[(t.next.Add(1)-1)%uint64(len(t.slots))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepConnection(c)
}

func (s *slot) keepConnection(c *Connection) {
	s.used, s.id, s.start, s.took, s.err = true, c.ID, c.Start, c.Took, nil
	s.connection = &Service{Key: c.Service, Proto: c.Proto, Received: c.Received, Code: c.Code, Cause: c.Cause}
	s.client, s.is4 = c.Client.As16(), c.Client.Is4()
	s.text = append(s.text[:0], c.Host[:min(len(c.Host), maxText)]...)
	s.cut = [3]int{0, len(s.text), len(s.text)}
	s.end.Status, s.end.Body, s.end.Err = 0, c.Sent, nil
	s.site, s.route, s.class, s.cache = "", "", stage.Anonymous, ""
	s.pool, s.tier, s.origin, s.tries = c.Pool, c.Tier, c.Origin, c.Tries
	s.spill, s.full = c.Spill, ""
	s.marks, s.revision = s.marks[:0], ""
}

// Service is what an Explanation says of a connection that is no request.
type Service struct {
	Key      string `json:"key"`
	Proto    string `json:"-"`
	Received int64  `json:"received"`
	Code     string `json:"-"`
	Cause    string `json:"-"`
}
