package balance

import (
	"cmp"
	"slices"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
)

// Waterfall is the names of a pool's tiers in the order in which this edge fills them.
func Waterfall(spec *v1.OriginPoolSpec, where Where) []string {
	list := make([]string, 0, len(spec.Tiers))
	for _, i := range ranked(spec.Tiers, where.Zone) {
		list = append(list, TierName(spec, i))
	}
	return list
}

// TierName is the name of a tier: one without a name is called after its place.
func TierName(spec *v1.OriginPoolSpec, i int) string {
	if n := spec.Tiers[i].Name; n != "" {
		return n
	}
	return "tier-" + strconv.Itoa(i)
}

// ranked is the order in which tiers are filled, as indices: by their rank, those in the edge's zone first, then
// by price, then as they stand.
func ranked(tiers []v1.Tier, zone string) []int {
	list := make([]int, min(len(tiers), maxTiers))
	for i := range list {
		list[i] = i
	}
	rank := func(i int) int {
		if o := tiers[i].Order; o != nil {
			return *o
		}
		return i + 1
	}
	far := func(i int) int {
		if zone != "" && tiers[i].Zone == zone {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(far(a), far(b)), cmp.Compare(tiers[a].Price, tiers[b].Price))
	})
	return list
}
