package edge

import (
	"strings"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/access"
	"github.com/relais-edge/relais/internal/edge/apiguard"
	"github.com/relais-edge/relais/internal/edge/geo"
	"github.com/relais-edge/relais/internal/edge/jwt"
	"github.com/relais-edge/relais/internal/edge/meter"
	"github.com/relais-edge/relais/internal/edge/origin"
	"github.com/relais-edge/relais/internal/edge/record"
)

// remember makes what is recorded of requests, and has it say where visitors are.
func (e *Edge) remember(cfg *Config) (err error) {
	e.ring = record.NewRing(cfg.Explain)
	if cfg.AccessLog != nil {
		e.log = record.NewLog(cfg.AccessLog, cfg.Logger, cfg.Metrics)
	}
	e.meter = meter.New(slotMeter)
	e.recorder = record.New(slotRecord, e.log, e.ring, cfg.Metrics)
	if err := e.keep(cfg.Record, cfg.Metrics); err != nil {
		return err
	}
	if len(cfg.Places) == 0 {
		return nil
	}
	if e.places, err = geo.New(geo.Config{Files: cfg.Places, Report: cfg.Logger.Info}, cfg.Metrics); err != nil {
		return err
	}
	e.ring.Locate(e.places.Find)
	if e.log != nil {
		e.recorder.Locate(e.places.Find)
	}
	return nil
}

// protect makes the stages that ask who may come, and with what.
func (e *Edge) protect(cfg *Config) *access.Stage {
	e.jwt = jwt.New(jwt.Config{Slot: slotJWT, Guard: origin.Guard, Recorded: cfg.replay != nil, Report: cfg.Logger.Warn}, cfg.Metrics)
	e.api = apiguard.New(apiguard.Config{Slot: slotAPI, Report: cfg.Logger.Warn}, cfg.Metrics)
	c := access.Config{Slot: slotAccess, Report: cfg.Logger.Warn}
	if e.places != nil { // an interface that holds no places must be nil
		c.Places = e.places
	}
	return access.New(c, cfg.Metrics)
}

// Endpoints lists what is known of a site's endpoints; ok is false when nothing is. Without an organization the
// site is one of the default organization.
func (e *Edge) Endpoints(site string) (reports []apiguard.Report, ok bool) {
	if !strings.Contains(site, "/") {
		site = "default/" + site
	}
	return e.api.Endpoints(site)
}

// forgetEndpoints drops what is known of the endpoints of sites that there are no more.
func (e *Edge) forgetEndpoints(b *bundle.Bundle) {
	there := make(map[string]bool, len(b.Sites))
	for _, s := range b.Sites {
		there[string(s.Key)] = len(s.API) > 0
	}
	e.api.Forget(func(site string) bool { return there[site] })
}
