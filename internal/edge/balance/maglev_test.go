package balance

import (
	"fmt"
	"slices"
	"testing"
)

// TestAMaglevTableIsThatOfThePlainRule (section 3.4 of the paper): each in turn takes the first free place of its walk.
// Edges of different releases share origins, so the table may not change.
func TestAMaglevTableIsThatOfThePlainRule(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 700} {
		members := make([]member, n)
		for i := range members {
			members[i] = member{o: &origin{address: fmt.Sprintf("10.0.%d.%d:80", i/256, i%256)}, weight: int64(1 + i%3)}
		}
		got := newMaglev(members).places
		if want := plainMaglev(members, uint64(len(got))); !slices.Equal(got, want) {
			t.Errorf("%d members: another table than by the plain rule", n)
		}
	}
}

func plainMaglev(members []member, size uint64) []uint16 {
	places, taken := make([]uint16, size), make([]bool, size)
	asked, credit := make([]uint64, len(members)), make([]int64, len(members))
	heaviest := slices.MaxFunc(members, func(a, b member) int { return int(a.weight - b.weight) }).weight
	for left := size; left > 0; {
		for i := 0; i < len(members) && left > 0; i++ {
			if credit[i] += members[i].weight; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			h := hashString(members[i].o.address)
			begin, step := mix(h)%size, mix(^h)%(size-1)+1
			at := begin
			for ; taken[at]; at = (begin + asked[i]*step) % size {
				asked[i]++
			}
			taken[at], places[at] = true, uint16(i)
			left--
		}
	}
	return places
}

func TestInverse(t *testing.T) {
	for _, prime := range maglevSizes {
		for _, n := range []uint64{1, 2, 77, uint64(prime) - 1} {
			if got := inverse(n, uint64(prime)); got >= uint64(prime) || got*n%uint64(prime) != 1 {
				t.Errorf("%d modulo %d: %d", n, prime, got)
			}
		}
	}
}
