package edge

import (
	"context"
	"net"
	"path/filepath"

	"github.com/relais-edge/relais/internal/edge/balance"
	"github.com/relais-edge/relais/internal/edge/bots"
	"github.com/relais-edge/relais/internal/edge/challenge"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/edge/visitor"
	"github.com/relais-edge/relais/internal/edge/waitroom"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// visitors makes the stages that know visitors and what they carry.
func (e *Edge) visitors(cfg *Config) (*visitor.Stage, *challenge.Stage) {
	secrets := seal.Dir(filepath.Join(cfg.Data, "secrets"))
	e.rooms = waitroom.New(waitroom.Config{
		Slot: slotRoom, Dir: filepath.Join(cfg.Data, "rooms"), Secrets: secrets, Pools: e.balance, Logger: cfg.Logger,
	}, cfg.Metrics)
	challenges := challenge.New(slotChallenge, secrets, cfg.Metrics)
	resolver := cfg.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	e.bots = bots.New(slotBots, challenges, resolver, cfg.Metrics)
	dry := cfg.replay.orNothing()
	return visitor.New(slotVisitor, visitor.Config{Clock: dry.clock(), Presume: dry.Presume}, secrets, cfg.Metrics), challenges
}

// fullRoom is the edge as balance.Room: visitors for whom there is no place get one in the line of the site's
// waiting room, if it has one.
type fullRoom Edge

// Answer implements balance.Room.
func (e *fullRoom) Answer(_ context.Context, x *stage.Exchange, f balance.Full) (*message.Response, error) {
	return e.rooms.Answer(x, f.Pool), nil
}

// stripper takes what a stage gave visitors out of what origins see.
type stripper interface {
	Strip(x *stage.Exchange, f *message.Fields)
}

// own are the stages that give visitors something to carry.
type own [3]stripper

// Strip implements route.Cookies.
func (o own) Strip(x *stage.Exchange, f *message.Fields) {
	for _, s := range o {
		s.Strip(x, f)
	}
}
