package forecast

import "github.com/relais-edge/relais/internal/edge/balance"

// Forecast is the answer.
type Forecast struct {
	Simulation bool    `json:"simulation"` // always true
	How        string  `json:"how"`
	WhatIf     string  `json:"whatIf"`
	Factor     float64 `json:"factor"` // of the recorded load
	// Verdict is the answer in a line.
	Verdict string `json:"verdict"`
	// Fits is false when anybody would be refused or not answered in time, or, while it begins, more than one request
	// in a thousand or anybody with a basket would be lost.
	Fits       bool     `json:"fits"`
	OrdersLost bool     `json:"ordersLost"`
	Pools      []Pool   `json:"pools"`
	Warnings   []string `json:"warnings"`
	// Log is how reading the access logs went; nil when an edge was asked.
	Log *LogStats `json:"log,omitempty"`
}

// Pool is the forecast of a pool. Rates are in requests a second.
type Pool struct {
	Key  string `json:"key"`
	From string `json:"from"` // what of the recorded load it begins with
	// Asked is what comes, by class; Lost what is not answered.
	Asked balance.ByClass `json:"asked"`
	Lost  Lost            `json:"lost"`
	// WasRefused was recorded.
	WasRefused balance.ByClass `json:"wasRefused"`
	// Latency that the change adds, as far as the times of the tiers are known; nil where they are not.
	Extra *Extra `json:"extra,omitempty"`
	// Transition is the time until the balancer has settled.
	Transition Transition `json:"transition"`
	// PricePerHour is of all tiers; absent where the documents give no price.
	PricePerHour *NowThen `json:"pricePerHour,omitempty"`
	Tiers        []Tier   `json:"tiers"`
	Warnings     []string `json:"warnings"`
}

// Lost are requests a second that are not answered, by why.
type Lost struct {
	Refused balance.ByClass `json:"refused"` // no tier had room
	Failed  balance.ByClass `json:"failed"`  // the tries that are allowed all failed
	Late    balance.ByClass `json:"late"`    // the answer did not begin in time
}

// Transition is the time between the change and the measurement.
type Transition struct {
	Seconds float64         `json:"seconds"`
	Lost    balance.ByClass `json:"lost"` // requests, not a rate
}

// Extra is added latency in ms.
type Extra struct {
	Mean float64 `json:"mean"`
	P95  float64 `json:"p95"`
}

// NowThen is a figure as recorded and as forecast.
type NowThen struct {
	Now  float64 `json:"now"`
	Then float64 `json:"then"`
}

// Tier is the forecast of a tier.
type Tier struct {
	Name string `json:"name"`
	// Failed of so many origins.
	Failed  int `json:"failed"`
	Origins int `json:"origins"`
	// Slots is what the simulated servers work on at once, and Source where that is from: flag, reported, found,
	// told, or unknown, which is without bound.
	Slots        int      `json:"slots,omitempty"`
	Source       string   `json:"source"`
	Now          Side     `json:"now"`
	Then         Side     `json:"then"`
	PricePerHour *NowThen `json:"pricePerHour,omitempty"`
}

// Side is a tier as recorded, or as forecast.
type Side struct {
	Rate     balance.ByClass `json:"rate"` // requests a second
	InFlight float64         `json:"inFlight"`
	// Limit is what the edge lets in at once, or Slots where it has no limit; 0 is none.
	Limit float64 `json:"limit,omitempty"`
	// Spills are requests a second that another tier was the first choice of, by reason.
	Spills balance.Spills `json:"spills"`
	// Mean is how long answers took, ms; 0 is not known.
	Mean float64 `json:"mean,omitempty"`
}

func (l *Lost) all() balance.ByClass {
	return balance.ByClass{
		Anonymous: l.Refused.Anonymous + l.Failed.Anonymous + l.Late.Anonymous,
		Known:     l.Refused.Known + l.Failed.Known + l.Late.Known,
		Basket:    l.Refused.Basket + l.Failed.Basket + l.Late.Basket,
	}
}

// LogStats is how reading the access logs went, in lines. Where only a part of a log was read its lines stand for all.
type LogStats struct {
	Lines      float64 `json:"lines"`
	Unreadable float64 `json:"unreadable"`
	// Elsewhere asked no origin: cache hits, redirects, blocked requests. Connections are those of services.
	Elsewhere   float64 `json:"elsewhere"`
	Connections float64 `json:"connections"`
	// Unplaced were refused by the pool of a site that has several, so that nobody knows which.
	Unplaced float64 `json:"unplaced"`
	// LeftOut were more minutes, pools or tiers than are kept, or outside of the window.
	LeftOut float64 `json:"leftOut"`
	// Bytes of the logs, and those of them that were read.
	Bytes     int64 `json:"bytes"`
	BytesRead int64 `json:"bytesRead"`
	Sampled   bool  `json:"sampled"`
}
