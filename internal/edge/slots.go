package edge

import (
	"github.com/relais-edge/relais/internal/edge/access"
	"github.com/relais-edge/relais/internal/edge/challenge"
	"github.com/relais-edge/relais/internal/edge/encode"
	"github.com/relais-edge/relais/internal/edge/hints"
	"github.com/relais-edge/relais/internal/edge/maintenance"
	"github.com/relais-edge/relais/internal/edge/visitor"
	"github.com/relais-edge/relais/internal/stage"
)

// The slots of the stages.
const (
	slotRoute stage.Slot = iota
	slotAccess
	slotVisitor
	slotRateLimit
	slotWAF
	slotCache
	slotBalance
	slotOrigin
	slotRecord
	slotManners
	slotMaintenance
	slotHints
	slotEncode
	slotMirror
	slotJWT
	slotAPI
	slotTrial
	slotImage
	slotRoom
	slotChallenge
	slotBots
	slotFlood
	slotShare
	slotMeter
	slots // how many there are
)

// There is a place for each of them.
var _ [stage.Slots - slots]struct{}

// slotted is a stage that makes a part of each site.
type slotted struct {
	slot stage.Slot
	name string
	stage.Compiler
}

// others are the stages that an Edge needs only while it is made.
type others struct {
	access      *access.Stage
	visitor     *visitor.Stage
	maintenance *maintenance.Stage
	hints       *hints.Stage
	encode      *encode.Stage
}

// slotted are the stages that make a part of each site, live ones apart.
func (e *Edge) slotted(o *others) []slotted {
	return []slotted{
		{slotRoute, "route", e.routes},
		{slotAccess, "access", o.access},
		{slotVisitor, "visitor", o.visitor},
		{slotRateLimit, "ratelimit", e.limits},
		{slotWAF, "waf", e.waf},
		{slotCache, "cache", e.cache},
		{slotBalance, "balance", e.balance},
		{slotRecord, "record", e.recorder},
		{slotManners, "manners", mannersOf{}},
		{slotMaintenance, "maintenance", o.maintenance},
		{slotHints, "hints", o.hints},
		{slotEncode, "encode", o.encode},
		{slotMirror, "mirror", e.mirror},
		{slotJWT, "jwt", e.jwt},
		{slotAPI, "api", e.api},
		{slotTrial, "trial", e.trial},
		{slotImage, "image", e.images},
	}
}

// live are the stages that judge what is at hand and in no record: the load, DNS, TLS, and what visitors were
// given. An edge that serves recorded requests makes no parts for them, so that they do nothing there.
func (e *Edge) live(c *challenge.Stage) []slotted {
	return []slotted{
		{slotRoom, "room", e.rooms},
		{slotChallenge, "challenge", c},
		{slotBots, "bots", e.bots},
		{slotFlood, "flood", e.flood},
		{slotShare, "share", e.share},
		{slotMeter, "meter", e.meter},
	}
}
