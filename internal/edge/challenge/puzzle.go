package challenge

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strconv"

	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The work of a puzzle.
const (
	// Parts is how many numbers are looked for.
	Parts     = 8
	partBits  = 3 // the work of one is less by this than that of all
	seedLen   = 32
	leastWork = 8
	mostWork  = 24
	// puzzleLife is how many seconds a puzzle may be solved in.
	puzzleLife = 300
	// maxDigits bounds the digits of a number in a solution.
	maxDigits = 12
)

// The layouts of the payloads.
const (
	version   = 1
	puzzleLen = 18
	proofLen  = 22
)

// puzzle is work for one visitor.
type puzzle struct {
	effort  int
	issued  uint32 // Unix time in seconds
	nonce   uint64
	network uint16
	client  uint16
}

func (p *puzzle) append(b []byte, keys *seal.Keys) []byte {
	var raw [puzzleLen]byte
	raw[0], raw[1] = version, byte(p.effort)
	binary.BigEndian.PutUint32(raw[2:], p.issued)
	binary.BigEndian.PutUint64(raw[6:], p.nonce)
	binary.BigEndian.PutUint16(raw[14:], p.network)
	binary.BigEndian.PutUint16(raw[16:], p.client)
	return keys.Append(b, raw[:])
}

func parsePuzzle(text []byte, keys *seal.Keys) (p puzzle, ok bool) {
	var memory [puzzleLen]byte
	raw, err := keys.Open(memory[:0], text, puzzleLen)
	if err != nil || raw[0] != version {
		return p, false
	}
	return puzzle{
		int(raw[1]), binary.BigEndian.Uint32(raw[2:]), binary.BigEndian.Uint64(raw[6:]),
		binary.BigEndian.Uint16(raw[14:]), binary.BigEndian.Uint16(raw[16:]),
	}, true
}

// seed is what the numbers are hashed with. It is short, so that a try is one block of SHA-256.
func seed(text []byte) []byte {
	sum := sha256.Sum256(text)
	return hex.AppendEncode(nil, sum[:seedLen/2])
}

// solved checks a solution: eight decimal numbers with hyphens between them, of which each, written after the seed,
// its index and two points, hashes to so many zero bits.
func solved(text, solution []byte, effort int) bool {
	s := seed(text)
	var line [seedLen + 3 + maxDigits]byte
	copy(line[:], s)
	line[seedLen], line[seedLen+2] = '.', '.'
	for i := range Parts {
		n := 0
		for n < len(solution) && solution[n] >= '0' && solution[n] <= '9' {
			n++
		}
		if n == 0 || n > maxDigits || (i < Parts-1) != (n < len(solution)) || n < len(solution) && solution[n] != '-' {
			return false
		}
		line[seedLen+1] = '0' + byte(i)
		sum := sha256.Sum256(append(line[:seedLen+3], solution[:n]...))
		if bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) < effort-partBits {
			return false
		}
		solution = solution[min(n+1, len(solution)):]
	}
	return true
}

// Solve finds the numbers of a puzzle with that seed, as a program would.
func Solve(seed string, effort int) string {
	line := []byte(seed + ".0.")
	var out []byte
	for i := range Parts {
		line[len(seed)+1] = '0' + byte(i)
		for n := int64(0); ; n++ {
			sum := sha256.Sum256(strconv.AppendInt(line[:len(seed)+3], n, 10))
			if bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) >= effort-partBits {
				if i > 0 {
					out = append(out, '-')
				}
				out = strconv.AppendInt(out, n, 10)
				break
			}
		}
	}
	return string(out)
}

// proof says that its bearer has solved.
type proof struct {
	waited  bool // by time, not by work
	issued  uint32
	expires uint32
	id      uint64
	network uint16
	client  uint16
}

func (p *proof) append(b []byte, keys *seal.Keys) []byte {
	var raw [proofLen]byte
	raw[0] = version
	if p.waited {
		raw[1] = 1
	}
	binary.BigEndian.PutUint32(raw[2:], p.issued)
	binary.BigEndian.PutUint32(raw[6:], p.expires)
	binary.BigEndian.PutUint64(raw[10:], p.id)
	binary.BigEndian.PutUint16(raw[18:], p.network)
	binary.BigEndian.PutUint16(raw[20:], p.client)
	return keys.Append(b, raw[:])
}

func parseProof(text []byte, keys *seal.Keys) (p proof, ok bool) {
	var memory [proofLen]byte
	raw, err := keys.Open(memory[:0], text, proofLen)
	if err != nil || raw[0] != version {
		return p, false
	}
	return proof{
		raw[1] == 1, binary.BigEndian.Uint32(raw[2:]), binary.BigEndian.Uint32(raw[6:]), binary.BigEndian.Uint64(raw[10:]),
		binary.BigEndian.Uint16(raw[18:]), binary.BigEndian.Uint16(raw[20:]),
	}, true
}

// binding hashes for whom a puzzle or proof is.
func binding(x *stage.Exchange, id uint64) (network, client uint16) {
	return budget.Bind(id, x.Client, x.In.Get(message.UserAgent))
}

// fits says whether x may be the one that something was bound to: a telephone changes its network, a browser its
// name, and neither both at once.
func fits(x *stage.Exchange, id uint64, network, client uint16) bool {
	n, c := binding(x, id)
	return n == network || c == client
}
