package flood

import (
	"hash/maphash"
	"net/netip"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// The dimensions along which requests are sorted into cells.
const (
	onTarget   = iota // the method and the first segment of the path
	onQuery           // the names of the parameters
	onNovelty         // whether the URL was asked for lately
	onAgent           // the browser and its language
	onOrder           // which fields come, in which order
	onSource          // what else the source did
	onStanding        // how near to an order, cookies, where it comes from
	scored            // those above judge a request
	onOutcome  = scored
	dimensions = scored + 1
)

// cells is how many cells a dimension has.
const cells = 128

// dimensionNames are shown to people.
var dimensionNames = [dimensions]string{"target", "query", "novelty", "agent", "order", "source", "standing", "outcome"}

// Cells of novelty and outcome that a flood can fill and a rush does not: what more visitors ask for becomes
// better known, not newer, and is answered from the store more often.
const (
	unseenCells  = 64
	outcomeQuiet = 64
)

// suspicious says whether more of a cell than usual speaks for an attack.
func suspicious(dimension, cell int) bool {
	switch dimension {
	case onNovelty:
		return cell < unseenCells
	case onOutcome:
		return cell >= outcomeQuiet
	}
	return true
}

// traits are a request's cells, and the hashes that made them.
type traits struct {
	cell   [scored]uint8
	source uint64 // of the address and the site
	group  uint64 // of its network and the site
	agent  uint64
	file   bool
}

// read sorts a request into cells. It notes the URL and the source.
func (s *Stage) read(x *stage.Exchange, site uint64, tick uint32) (t traits) {
	in := x.In
	t.file = isFile(x)
	first, depth := segment(x.Path)
	target := mix(maphash.Bytes(s.seed, first) + uint64(in.Method)<<8 + uint64(depth))
	t.cell[onTarget] = cell(target)
	t.cell[onQuery] = s.queryCell(x)

	url := mix(maphash.Bytes(s.seed, x.Path) ^ maphash.Bytes(s.seed, in.Query())*0x9e3779b97f4a7c15 ^ site)
	novel := uint8(target) % unseenCells
	if s.urls.add(url) > 0 {
		novel += unseenCells
	}
	t.cell[onNovelty] = novel

	t.agent = mix(maphash.Bytes(s.seed, in.Get(message.UserAgent)) ^ maphash.Bytes(s.seed, in.Get(message.AcceptLanguage))*3)
	t.cell[onAgent] = cell(t.agent)
	t.cell[onOrder] = cell(s.order(in))

	t.source, t.group = addresses(s.seed, x.Client, site)
	state := in.Has(message.Cookie)
	before := s.sources.see(t.source, tick, t.file, state)
	t.cell[onSource] = sourceCell(&before, t.file, state)
	t.cell[onStanding] = standingCell(x, state, t.file)
	return t
}

// cell is the cell of a hash.
func cell(h uint64) uint8 { return uint8(h >> 57) }

// mix makes each bit of h count.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// segment lends the first segment of a path, and says how deep the path is: 1 to 4.
func segment(path []byte) (first []byte, depth int) {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			if depth++; depth == 1 {
				first = path[:i]
			}
		}
	}
	if first == nil {
		// The names of a site's pages and of what lies flat are few or many; the latter are told apart
		// by their ending alone.
		if first = path; len(first) > 24 {
			first = first[:24]
		}
	}
	return first, min(depth+1, 4)
}

// maxParameters bounds how many of a query's names are looked at.
const maxParameters = 16

// queryCell is the cell of the set of names; 0 is for none.
func (s *Stage) queryCell(x *stage.Exchange) uint8 {
	q := x.In.Query()
	if len(q) == 0 {
		return 0
	}
	var sum uint64
	for n := 0; len(q) > 0 && n < maxParameters; n++ {
		end := 0
		for end < len(q) && q[end] != '&' && q[end] != ';' {
			end++
		}
		name := q[:end]
		for i, c := range name {
			if c == '=' {
				name = name[:i]
				break
			}
		}
		sum += mix(maphash.Bytes(s.seed, name))
		q = q[min(end+1, len(q)):]
	}
	return 1 + cell(mix(sum))%(cells-1)
}

// order hashes which fields a request has, in their order, but for those that come and go with a visit.
func (s *Stage) order(in *message.Request) uint64 {
	h := uint64(in.Proto) + 1
	for i := range in.Len() {
		id, name, _ := in.At(i)
		switch id {
		case message.Cookie, message.Referer, message.IfNoneMatch, message.IfModifiedSince, message.CacheControl, message.ContentLength,
			message.ContentType, message.Origin, message.Range, message.IfRange, message.Pragma, message.Connection, message.Priority,
			message.Authorization, message.IdempotencyKey, message.SecFetchUser, message.UpgradeInsecureRequests:
			continue
		case message.Other:
			h = (h ^ maphash.Bytes(s.seed, name)) * 0x9e3779b97f4a7c15
		default:
			h = (h ^ uint64(id)) * 0x9e3779b97f4a7c15
		}
	}
	return mix(h)
}

// isFile says whether a request is for what a page shows, as far as it tells.
func isFile(x *stage.Exchange) bool {
	if dest := x.In.Get(message.SecFetchDest); len(dest) > 0 {
		switch string(dest) {
		case "document", "iframe", "frame", "empty", "object", "embed":
			return false
		}
		return true
	}
	accept := x.In.Get(message.Accept)
	if len(accept) > 6 && (string(accept[:6]) == "image/" || string(accept[:5]) == "text/" && accept[5] == 'c') {
		return true
	}
	p := x.Path
	for i := len(p) - 1; i > 0 && p[i] != '/' && i > len(p)-6; i-- {
		if p[i] == '.' {
			return true
		}
	}
	return false
}

// addresses hashes an address, and the network that its owner is likely to have: an IPv4 /24, an IPv6 /48.
// An IPv6 address counts as its /64.
func addresses(seed maphash.Seed, a netip.Addr, site uint64) (source, group uint64) {
	var b [9]byte
	n := 3
	switch {
	case a.Is4() || a.Is4In6():
		v := a.As4()
		b[0] = 4
		copy(b[1:], v[:])
	case a.IsValid():
		v := a.As16()
		b[0], n = 6, 6
		copy(b[1:], v[:8])
	}
	return mix(maphash.Bytes(seed, b[:]) ^ site), mix(maphash.Bytes(seed, b[:1+n]) ^ site)
}

// sourceCell says what a source did before: how many pages and files, and whether it comes back with a cookie.
func sourceCell(before *source, file, state bool) uint8 {
	if file {
		return uint8(64 + level(before.pages, 3))
	}
	c := level(before.pages, 7)<<2 | min(level(before.files, 4)/2, 3)
	if state {
		c |= 32
	}
	return uint8(c)
}

// standingCell says how near to an order a visitor is, and where a request says that it comes from.
func standingCell(x *stage.Exchange, state, file bool) uint8 {
	c := int(x.Visitor.Class)*4 + int(x.Visitor.Step) // of four steps, so that nobody's path makes another class of him
	c <<= 1
	if state {
		c |= 1
	}
	c <<= 1
	if x.In.Has(message.Referer) {
		c |= 1
	}
	c <<= 1
	if file {
		c |= 1
	}
	return uint8(c)
}

// outcomeCell sorts answers: by hundreds of the status, and by whether the origin had to be asked.
func outcomeCell(status int, asked bool) uint8 {
	switch {
	case status == 401 || status == 403 || status == 404 || status == 429:
		return uint8(outcomeQuiet + 1 + status%32)
	case status >= 400 && status < 500:
		return outcomeQuiet + 60
	case asked:
		return outcomeQuiet
	}
	return 0
}
