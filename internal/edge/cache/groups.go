package cache

import (
	"slices"
	"sync/atomic"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// groupSlots is how many cache groups are told apart for certain. Groups that share a slot are
// invalidated together: that costs a fetch, and never serves what is outdated.
const groupSlots = 1 << 14

// groupCounts say when a cache group was invalidated the last time (RFC 9875): an answer that was
// asked for earlier is not used. One invalidation costs one store, whatever the group holds.
type groupCounts struct {
	count atomic.Uint64
	last  [groupSlots]atomic.Uint64
}

func (g *groupCounts) now() uint64 { return g.count.Load() }

// dead says whether a group that the object is in was invalidated since it was asked for.
func (s *Stage) dead(o *object) bool {
	for _, g := range o.groups {
		if s.groups.last[g].Load() > o.born {
			return true
		}
	}
	return false
}

// enrol notes the groups of an object. Groups are of one origin of one site (RFC 9875 section 2.1).
func (s *Stage) enrol(o *object, x *stage.Exchange) {
	if !semantics.Groups(&o.fields, message.CacheGroups, func(name []byte) {
		o.groups = append(o.groups, s.groupSlot(x, name))
	}) {
		// What cannot be read says nothing (RFC 9651 section 4.2), but it was meant: validate each time.
		o.groups, o.NoCache = nil, true
	}
	slices.Sort(o.groups)
	o.groups = slices.Clip(slices.Compact(o.groups))
}

func (s *Stage) groupSlot(x *stage.Exchange, name []byte) uint16 {
	key := append(appendOrigin(nil, x), ' ')
	return uint16(s.store.HashOf(append(key, name...)).Index(groupSlots))
}

// invalidateGroups does what Cache-Group-Invalidation of the answer to an unsafe request says (RFC
// 9875 section 3).
func (s *Stage) invalidateGroups(x *stage.Exchange, resp *message.Response) {
	var slots []uint16
	if !resp.Has(message.CacheGroupInvalidation) || !semantics.Groups(&resp.Fields, message.CacheGroupInvalidation, func(name []byte) {
		slots = append(slots, s.groupSlot(x, name))
	}) {
		return
	}
	for _, slot := range slots {
		s.groups.last[slot].Store(s.groups.count.Add(1))
		s.m.groups.Inc()
	}
}
