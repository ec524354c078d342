package record

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// KeeperConfig says which requests are kept, and how many.
type KeeperConfig struct {
	// Share is the share of requests that is kept, from 0 to 1, besides those that somebody may ask about.
	Share float64
	// Bytes is the memory for them all, and OrgBytes and OrgCount are the bounds of an organization.
	Bytes, OrgBytes int64
	OrgCount        int
	// BodyBytes is how much of a request's body is kept.
	BodyBytes int
	// Dir is the folder of the key that hides values, and of the file; empty for a key that ends with the process.
	Dir string
	// FileBytes bounds the file over which the record outlives the process; 0 for none.
	FileBytes int64
	Clients   Clients
	Logger    *slog.Logger
}

const (
	// stagedSlots is how many requests wait to be hidden and kept; what comes when all wait is dropped.
	stagedSlots = 128
	// maxBodies is how many bodies are noted at once, as a request may turn out to be one to keep.
	maxBodies = 256
	// maxPerSecond is how many requests of either kind are kept in a second.
	maxPerSecond = 256
)

// Keeper keeps real requests, hidden by what redact.go says, so that they can be replayed. Requests are copied
// into memory that is there already and hidden in another goroutine; what has no room is dropped and counted.
type Keeper struct {
	cfg       KeeperConfig
	slot      stage.Slot
	threshold uint64
	notable   pace
	ordinary  pace
	free      chan *staged
	queue     chan *staged
	bodies    buffers
	store     *store
	spool     *spool // nil without a file
	masker    *masker
	kept      [2]observe.Counter
	dropped   observe.Counter
	unkept    observe.Counter
	revision  *atomic.Pointer[string]
}

// staged is a request that waits to be hidden.
type staged struct {
	notable                                                bool
	id                                                     stage.RequestID
	start                                                  time.Time
	took                                                   time.Duration
	x                                                      stage.Exchange // what is kept of the exchange
	in                                                     message.Request
	conn                                                   message.Conn
	name                                                   string
	answer                                                 message.Fields
	status                                                 int
	bytes                                                  int64
	made                                                   bool
	revision, site, route, organization, code, side, abort string
	body                                                   []byte
	size                                                   int64
	hasBody, cut                                           bool
	marks                                                  []stage.Mark
}

// NewKeeper makes a keeper of the requests whose stage memory is in a slot. What a process before this one has left
// in its file is read by Run.
func NewKeeper(slot stage.Slot, cfg KeeperConfig, m *observe.Registry) (*Keeper, error) {
	key, err := recordKey(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	kept := m.Counters("relais_record_requests_total", "Requests that were kept for replays, by kind: notable, or ordinary ones of the share.", 2, "kind")
	k := &Keeper{
		cfg: cfg, slot: slot, threshold: uint64(min(cfg.Share, 1) * (1 << 16)),
		free: make(chan *staged, stagedSlots), queue: make(chan *staged, stagedSlots),
		store: newStore(cfg.Bytes, cfg.OrgBytes, cfg.OrgCount), masker: newMasker(key),
		kept:    [2]observe.Counter{kept.With("ordinary"), kept.With("notable")},
		dropped: m.Counters("relais_record_dropped_total", "Requests that were not kept for replays, as too many came at once.", 1).With(),
		unkept:  m.Counters("relais_record_bodies_dropped_total", "Bodies that were not kept for replays, as too many were under way.", 1).With(),
	}
	for range stagedSlots {
		k.free <- &staged{}
	}
	if cfg.FileBytes > 0 {
		k.spool, err = openSpool(filepath.Join(cfg.Dir, "requests.ndjson"), cfg.FileBytes)
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
	}
	return k, nil
}

// recordKey reads the key that hides values, or makes one, so that equal values stay equal over restarts.
func recordKey(dir string) (key [32]byte, err error) {
	if dir == "" {
		_, _ = rand.Read(key[:]) // never fails
		return key, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return key, err
	}
	name := filepath.Join(dir, "key")
	b, err := os.ReadFile(name)
	if err == nil && len(b) == len(key) {
		return [32]byte(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, _ = rand.Read(key[:])
	if err := os.WriteFile(name+".new", key[:], 0o600); err != nil {
		return key, err
	}
	return key, os.Rename(name+".new", name)
}

// sampled says whether an id is of the share. Ids are random.
func (k *Keeper) sampled(id *stage.RequestID) bool {
	return uint64(id[2])|uint64(id[3])<<8 < k.threshold
}

// memory is what the recorder keeps in an exchange.
type memory struct {
	line   line
	tee    tee
	answer message.Fields
	status int
	seen   bool
}

func memoryOf(x *stage.Exchange, slot stage.Slot) *memory {
	m, _ := x.Local[slot].(*memory)
	if m == nil {
		m = &memory{}
		x.Local[slot] = m
	}
	return m
}

// tee notes the beginning of a body as it passes.
type tee struct {
	inner message.Body
	buf   []byte
	size  int64
	most  int
	whole bool
	noted bool // there is a buffer, which may be empty
}

// Next implements message.Body.
func (t *tee) Next(ctx context.Context) ([]byte, error) {
	b, err := t.inner.Next(ctx)
	t.size += int64(len(b))
	if room := t.most - len(t.buf); room > 0 {
		t.buf = append(t.buf, b[:min(len(b), room)]...)
	}
	t.whole = err == io.EOF
	return b, err
}

// Close implements message.Body.
func (t *tee) Close(cause error) { t.inner.Close(cause) }

// watch begins to note a request's body.
func (k *Keeper) watch(x *stage.Exchange) {
	if x.In.Body == nil || k.cfg.BodyBytes == 0 {
		return
	}
	m := memoryOf(x, k.slot)
	buf, ok := k.bodies.get()
	if !ok {
		k.unkept.Inc()
		return
	}
	m.tee = tee{inner: x.In.Body, buf: buf, most: k.cfg.BodyBytes, noted: true}
	x.In.Body = &m.tee
}

// buffers is memory for a bounded number of bodies. What was used last is used first, so that there is no
// more of it than bodies at once.
type buffers struct {
	mu    sync.Mutex
	spare [][]byte
	out   int
}

// get lends an empty buffer, which may have no memory yet.
func (b *buffers) get() (buf []byte, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.out == maxBodies {
		return nil, false
	}
	b.out++
	if n := len(b.spare); n > 0 {
		buf, b.spare = b.spare[n-1][:0], b.spare[:n-1]
	}
	return buf, true
}

func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out--
	b.spare = append(b.spare, buf)
}

// ended gives the memory of a body back.
func (k *Keeper) ended(x *stage.Exchange, m *memory) {
	if m == nil {
		return
	}
	m.seen = false
	if m.tee.noted {
		if x.In.Body == message.Body(&m.tee) {
			x.In.Body = m.tee.inner
		}
		k.bodies.put(m.tee.buf)
		m.tee = tee{}
	}
}

// keep takes a request that has ended, if it is one to keep.
func (k *Keeper) keep(x *stage.Exchange, o message.Outcome, took time.Duration) {
	m, _ := x.Local[k.slot].(*memory)
	if isNotable := notable(x, o); isNotable || k.sampled(&x.ID) {
		k.take(x, o, took, m, isNotable)
	}
	k.ended(x, m)
}

func (k *Keeper) take(x *stage.Exchange, o message.Outcome, took time.Duration, m *memory, isNotable bool) {
	p := &k.ordinary
	if isNotable {
		p = &k.notable
	}
	if !p.take(x.Now().Unix(), maxPerSecond) {
		k.dropped.Inc()
		return
	}
	select {
	case s := <-k.free:
		s.notable = isNotable
		s.fill(x, o, took, m)
		s.revision = *k.revision.Load()
		k.queue <- s // there is as much room as there are slots
	default:
		k.dropped.Inc()
	}
}

// fill copies what is kept, into memory of its own.
func (s *staged) fill(x *stage.Exchange, o message.Outcome, took time.Duration, m *memory) {
	s.id, s.start, s.took = x.ID, x.Start, took
	s.in.CopyFrom(x.In)
	s.in.Body, s.in.Trailer, s.in.Control = nil, nil, nil
	s.conn, s.name = message.Conn{}, ""
	if c := x.In.Conn; c != nil {
		s.conn = *c
		if c.TLS != nil {
			s.name = c.TLS.ServerName
		}
	}
	s.in.Conn = nil
	v := &s.x
	v.Client, v.PeerTrusted, v.ClientField, v.Visitor, v.CacheStatus = x.Client, x.PeerTrusted, x.ClientField, x.Visitor, x.CacheStatus
	v.Pool, v.Tier, v.Origin, v.Tries, v.Spill, v.Full = x.Pool, x.Tier, x.Origin, x.Tries, x.Spill, x.Full
	s.site, s.route, s.organization, s.code, s.side, s.abort = "", "", "", "", "", ""
	if x.Site != nil {
		s.site, s.organization = string(x.Site.Key), x.Site.Organization
	}
	if x.Route != nil {
		s.route = x.Route.Name
	}
	if e := x.Failure; e != nil {
		s.code, s.side = e.Code, e.Side.String()
	}
	if o.Err != nil {
		s.abort = "aborted"
	}
	s.marks = append(s.marks[:0], x.Trail.Marks()...)
	s.answer.Reset()
	s.status, s.bytes, s.made = o.Status, o.Body, true
	s.body, s.size, s.hasBody, s.cut = s.body[:0], x.In.ContentLength, false, false
	if x.In.Body != nil {
		s.hasBody, s.cut = true, true
	}
	if m == nil {
		return
	}
	if m.seen && x.Failure == nil {
		s.made = false
		s.status = m.status
		s.answer.CopyFrom(&m.answer)
	}
	if t := &m.tee; t.noted {
		s.hasBody, s.body = true, append(s.body, t.buf...)
		if t.whole {
			s.size = t.size
		}
		s.cut = s.size != int64(len(t.buf)) // it was not read to its end, or is more than is kept
	}
}

// Tap is a stage that stands above the cache and notes answers before rules change them.
func (k *Keeper) Tap() stage.Stage { return (*tap)(k) }

type tap Keeper

// Name implements stage.Stage.
func (t *tap) Name() string { return "record" }

// Serve implements stage.Stage.
func (t *tap) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	resp, err := next.Serve(ctx, x)
	if err != nil || !(*Keeper)(t).sampled(&x.ID) && resp.Status < 400 && !x.Spilled && x.Tries <= 1 && !x.Noted && x.Full == "" {
		return resp, err
	}
	m := memoryOf(x, t.slot)
	m.answer.CopyFrom(&resp.Fields)
	m.status, m.seen = resp.Status, true
	return resp, nil
}

// notable says whether somebody may ask about a request.
func notable(x *stage.Exchange, o message.Outcome) bool {
	return x.Failure != nil || x.Spilled || x.Tries > 1 || x.Full == "waited" || x.Noted || o.Status >= 400 || o.Err != nil
}

// Run hides and keeps requests until ctx ends, and what is left then.
func (k *Keeper) Run(ctx context.Context) error {
	failing := false
	if k.spool != nil {
		if err := k.spool.read(k.store.add); err != nil && k.cfg.Logger != nil {
			k.cfg.Logger.Warn("record: what was kept before cannot be read whole", "err", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case s := <-k.queue:
					failing = k.settle(s, failing)
				default:
					if k.spool != nil {
						return k.spool.close()
					}
					return nil
				}
			}
		case s := <-k.queue:
			failing = k.settle(s, failing)
		}
	}
}

// settle hides a request and keeps it.
func (k *Keeper) settle(s *staged, failing bool) bool {
	line, err := k.encode(s)
	organization, isNotable := s.organization, s.notable
	k.free <- s
	if err != nil {
		k.dropped.Inc()
		return failing
	}
	if isNotable {
		k.kept[1].Inc()
	} else {
		k.kept[0].Inc()
	}
	k.store.add(organization, isNotable, line)
	if k.spool == nil {
		return false
	}
	if err = k.spool.write(line); err != nil && !failing && k.cfg.Logger != nil {
		k.cfg.Logger.Error("record: cannot write; requests are kept in memory only until it can (is the disk full?)", "err", err)
	}
	return err != nil
}

// Export writes what is kept as NDJSON, the oldest first: of one organization, or of all when it is empty.
func (k *Keeper) Export(w io.Writer, organization string) error {
	return k.store.export(w, organization)
}

// encode hides a request and makes a line of it.
func (k *Keeper) encode(s *staged) (line []byte, err error) {
	defer func() {
		if p := recover(); p != nil { // a defect here must not end the process
			err = fmt.Errorf("record: panic: %v", p)
		}
	}()
	q := k.request(s)
	return q.AppendJSON(nil)
}

// request makes what is written of a request.
func (k *Keeper) request(s *staged) *Request {
	m, in := k.masker, &s.in
	client := m.client(s.x.Client, k.cfg.Clients)
	q := &Request{
		Format: RequestFormat, Revision: s.revision, ID: s.id.String(), Time: s.start.UTC().Round(0), Organization: s.organization,
		Client: client.String(), Trusted: s.x.PeerTrusted, Listener: s.conn.Listener, Proto: in.Proto.String(), Secure: in.Secure,
		ServerName: s.name, Method: string(in.MethodName()), Authority: string(in.Authority()),
		Path: string(m.path(nil, in.Path())), Millis: math.Round(float64(s.took.Microseconds())) / 1000,
		Answer: Answer{Status: s.status, Bytes: s.bytes, Made: s.made},
		Outcome: Outcome{
			Site: s.site, Route: s.route, Cache: s.x.CacheStatus, Pool: s.x.Pool, Tier: s.x.Tier, Origin: s.x.Origin, Tries: s.x.Tries,
			Spill: s.x.Spill, Full: s.x.Full, Code: s.code, Side: s.side, Abort: s.abort,
		},
	}
	if in.HasQuery() {
		v := string(m.pairs(nil, in.Query()))
		q.Query = &v
	}
	q.Fields = k.fields(&in.Fields, s.x.ClientField, client.String() != "invalid IP", s)
	q.Answer.Fields = k.fields(&s.answer, "", false, s)
	if s.hasBody {
		q.Body = &Body{Size: s.size, Cut: s.cut}
		if b := m.body(in.Get(message.ContentType), s.body); b != nil {
			q.Body.setBytes(b)
		} else if len(s.body) > 0 {
			q.Body.Cut = true
		}
	}
	if v := s.x.Visitor; v.Class != stage.Anonymous || v.Key != 0 {
		q.Visitor = Visitor{Key: m.number(v.Key), Tier: v.Tier}
		if v.Class != stage.Anonymous {
			q.Visitor.Class = v.Class.String()
		}
	}
	for _, d := range s.marks {
		q.Outcome.Marks = append(q.Outcome.Marks, [2]string{d.Stage, d.Code})
		if d.Stage == "forward" && (d.Code == "redirect" || d.Code == "respond") {
			q.Answer.Made, q.Answer.Fields = true, nil
		}
	}
	return q
}

// fields hides a head.
func (k *Keeper) fields(f *message.Fields, clientField string, known bool, s *staged) []Field {
	m := k.masker
	client := m.client(s.x.Client, k.cfg.Clients)
	var out []Field
	for i := range f.Len() {
		_, name, value := f.At(i)
		n := strings.ToLower(string(name))
		if clientField != "" && message.EqualFold(name, clientField) && known {
			n = "x-real-ip"
		}
		out = append(out, Field{string(name), string(m.field(nil, n, value, client))})
	}
	return out
}
