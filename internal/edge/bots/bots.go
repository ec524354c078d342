package bots

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// name of the stage, in trails.
const name = "bots"

// Stage scores visitors. It implements stage.Stage and stage.Compiler.
type Stage struct {
	slot       stage.Slot
	challenger stage.Challenger
	names      *names
	trapped    *trapped
	counter    *observe.Family[observe.Counter]
}

const maxSeries = 100_000

// What is counted.
const (
	outVerified = iota
	outImpostor
	outHoneypot
	outChallenged
	outDenied
	outCount
)

var outcomes = [outCount]string{"verified", "impostor", "honeypot", "challenged", "denied"}

// New returns the stage. It asks DNS nothing before Run.
func New(slot stage.Slot, challenger stage.Challenger, resolver Resolver, r *observe.Registry) *Stage {
	return &Stage{
		slot: slot, challenger: challenger, names: newNames(resolver), trapped: newTrapped(),
		counter: r.Counters("relais_bots_total", "Visitors that the bots stage judged, by what it found or did.", maxSeries, "site", "outcome"),
	}
}

// Run asks DNS for the names of addresses until ctx ends.
func (s *Stage) Run(ctx context.Context) error { return s.names.run(ctx) }

// Name implements stage.Stage.
func (s *Stage) Name() string { return name }

var (
	errHoneypot = &stage.Error{Code: "honeypot", Side: stage.SideClient, Status: 404, Err: errors.New("a path of the BotPolicy's honeypots")}
	errDenied   = &stage.Error{Code: "bot_denied", Side: stage.SideTenant, Status: 403, Err: errors.New("the visitor's score reached denyFrom of the BotPolicy; the marks say what it is made of")}
)

// Serve implements stage.Stage.
func (s *Stage) Serve(ctx context.Context, x *stage.Exchange, next stage.Handler) (*message.Response, error) {
	pt, _ := x.Site.Parts[s.slot].(*part)
	if pt == nil {
		return next.Serve(ctx, x)
	}
	p := pt.routes[x.Route.Index]
	if p == nil {
		return next.Serve(ctx, x)
	}
	mode := p.gate.Mode(x)
	if mode == v1.ModeOff {
		return next.Serve(ctx, x)
	}
	if s.verify(x, p) {
		pt.metrics[outVerified].Inc()
		x.MarkDetail(name, "verified", x.Visitor.Bot)
		return next.Serve(ctx, x)
	}
	p.observe(x)
	if p.honey(x) {
		pt.metrics[outHoneypot].Inc()
		x.Mark(name, "honeypot")
		x.Noted = true
		s.trapped.put(pt.hash, x, p.honeyTime)
		if mode == v1.ModeEnforce {
			return nil, errHoneypot
		}
	} else if len(p.honeypots) > 0 && s.trapped.has(pt.hash, x) {
		add(x, scoreHoneypot, "trapped", "asked for a path that no visitor finds: 60")
	}
	return s.judge(ctx, x, pt, p, mode, next)
}

// judge does what the document says for the score.
func (s *Stage) judge(ctx context.Context, x *stage.Exchange, pt *part, p *policy, mode v1.Mode, next stage.Handler) (*message.Response, error) {
	score := int(x.Visitor.Score)
	deny, ask := p.deny > 0 && score >= p.deny, p.ask > 0 && score >= p.ask
	switch {
	case !deny && !ask:
	case x.Visitor.Exempt() || x.Measures.Pardoned:
		x.Mark(name, "exempt")
	case mode == v1.ModeShadow && deny:
		x.Mark(name, "would-deny")
	case mode == v1.ModeShadow:
		x.Mark(name, "would-challenge")
	case deny:
		pt.metrics[outDenied].Inc()
		x.Mark(name, "denied")
		return nil, errDenied
	case s.challenger != nil && !s.challenger.Passed(x):
		if r := s.challenger.Challenge(x, 0); r != nil {
			pt.metrics[outChallenged].Inc()
			return r, nil
		}
	}
	return next.Serve(ctx, x)
}

// verify says whether x is a program that proved who it is, and scores an impostor.
func (s *Stage) verify(x *stage.Exchange, p *policy) bool {
	if len(p.verified) == 0 {
		return false
	}
	client := x.Client.Unmap()
	agent := x.In.Get(message.UserAgent)
	if p.keys != nil && x.In.Lookup("Signature-Input") != nil {
		bot, why := p.signature(x)
		if bot != "" {
			x.Visitor.Bot = bot
			return true
		}
		x.MarkDetail(name, "signature", why)
	}
	claims := ""
	for i := range p.verified {
		v := &p.verified[i]
		claimed := v.agent != "" && contains(agent, v.agent)
		if v.agent != "" && !claimed {
			continue
		}
		if within(v.networks, client) {
			x.Visitor.Bot = v.name
			return true
		}
		if !claimed {
			continue
		}
		if len(v.domains) > 0 {
			switch s.names.ask(client, v) {
			case nameGood:
				x.Visitor.Bot = v.name
				return true
			case nameUnknown:
				x.MarkDetail(name, "unknown-name", "DNS is asked for the name of the address")
				return false
			case nameBad:
			}
		}
		claims = v.name
	}
	if claims != "" {
		add(x, scoreImpostor, "impostor", "the name of a verified program without its proof: 60")
	}
	return false
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for i := range list {
		if list[i].Contains(a) {
			return true
		}
	}
	return false
}

// honey says whether x asks for a honeypot.
func (p *policy) honey(x *stage.Exchange) bool {
	for i := range p.honeypots {
		if p.honeypots[i].Holds(x) {
			return true
		}
	}
	return false
}

// trapped remembers who asked for a honeypot, by address and User-Agent, so that a program does not spoil the address
// that it shares. It is of a fixed size (256 KiB).
type trapped struct {
	seed  maphash.Seed
	epoch time.Time
	mu    sync.Mutex
	sets  [1 << 12][4]struct {
		who  uint64
		ends int64
	}
}

func newTrapped() *trapped { return &trapped{seed: maphash.MakeSeed(), epoch: time.Now()} }

func (t *trapped) who(site uint64, x *stage.Exchange) uint64 {
	var m [40]byte
	b := binary.BigEndian.AppendUint64(m[:0], site)
	b = binary.BigEndian.AppendUint64(b, budget.Fold(x.In.Get(message.UserAgent)))
	return maphash.Bytes(t.seed, budget.AppendPrefix(b, x.Client, 4, 8)) | 1
}

func (t *trapped) put(site uint64, x *stage.Exchange, d time.Duration) {
	w := t.who(site, x)
	ends := int64(x.Start.Add(d).Sub(t.epoch))
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.sets[w>>1%uint64(len(t.sets))]
	e := &s[0]
	for i := range s {
		if s[i].who == w {
			e = &s[i]
			break
		}
		if s[i].ends < e.ends {
			e = &s[i]
		}
	}
	e.who, e.ends = w, ends
}

func (t *trapped) has(site uint64, x *stage.Exchange) bool {
	w := t.who(site, x)
	now := int64(x.Start.Sub(t.epoch))
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.sets[w>>1%uint64(len(t.sets))]
	for i := range s {
		if s[i].who == w {
			return now < s[i].ends
		}
	}
	return false
}
