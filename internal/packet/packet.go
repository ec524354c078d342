// Package packet is the filter in front of the edge: it drops packets that are certain to be an
// attack before the machine spends anything else on them. It is an XDP program where the kernel
// takes one, nftables where it does not, and says exactly what is unprotected where neither can be.
// It never cuts the operator off: management addresses and ports pass, rules against them are
// refused, every rule of the flood detector ends by itself, and the filter ends with its process.
package packet

import (
	"errors"
	"net/netip"
	"time"
)

// Action is what a rule does with the packets of its sources.
type Action string

// The actions of a rule.
const (
	Deny  Action = "deny"  // dropped
	Allow Action = "allow" // passed, past all other ranks but the malformed one
)

// Rule says what happens to packets from a prefix. The longest prefix that holds a source decides.
type Rule struct {
	Prefix netip.Prefix `json:"prefix"`
	Action Action       `json:"action"`
	Until  time.Time    `json:"until"`  // when the rule ends by itself; never zero
	Reason string       `json:"reason"` // one of a bounded set, at most MaxReason bytes
	Since  time.Time    `json:"since"`
	// Packets that the rule decided on since it was made; 0 under nftables, which does not count them one by one.
	Packets uint64 `json:"packets"`
}

// Errors of Rules; each comes wrapped in a sentence that says how to mend it.
var (
	ErrCutsOff = errors.New("the rule would cut the operator off")
	ErrTooWide = errors.New("the prefix is too wide")
	ErrFull    = errors.New("the list of rules is full")
	ErrExpiry  = errors.New("the rule's end is wrong")
	ErrPrefix  = errors.New("the prefix is no prefix of addresses")
	ErrReason  = errors.New("the reason is wrong")
	ErrRuled   = errors.New("another rule already decides about the prefix")
)

// Bounds of the rules.
const (
	MaxRules   = 1 << 17        // rules at once
	MaxReason  = 64             // bytes of a reason
	MaxFor     = 24 * time.Hour // the longest life of a rule; who wants more renews it
	WidestV4   = 8              // the shortest prefix that may be denied, IPv4
	WidestV6   = 19             // and IPv6
	maxReasons = 256            // reasons told apart by the counters
)
