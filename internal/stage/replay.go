package stage

import (
	"math/rand/v2"
	"time"
)

// Verdict is all that the firewall found in a request.
type Verdict struct {
	// Deny is what the rules say, whatever the mode of the policy.
	Deny bool
	// Score is the anomaly score, Threshold the score from which on a request is refused.
	Score, Threshold int
	// Rules are the detection rules that matched, by number, in the order in which they did.
	Rules []int
}

// Replay makes x one whose time stands still at Start but for Pass, and whose chances follow from a
// seed that is not 0, so that the same request gives the same answer each time. Reset ends that.
func (x *Exchange) Replay(seed uint64) { x.seed = seed | 1 }

// Replayed says whether Replay was called.
func (x *Exchange) Replayed() bool { return x.seed != 0 }

// Pass lets time go on in an exchange that is replayed.
func (x *Exchange) Pass(d time.Duration) { x.lap += d }

// Chance is a random number; of an exchange that is replayed one that follows from its seed.
func (x *Exchange) Chance() uint64 {
	if x.seed == 0 {
		return rand.Uint64()
	}
	return Draw(&x.seed)
}

// Draw takes the next number of a sequence that follows from a seed, which is not 0 (splitmix64).
func Draw(seed *uint64) uint64 {
	*seed += 0x3c6ef372fe94f82a // even, so that an odd seed is never 0
	z := *seed
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
