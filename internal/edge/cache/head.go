package cache

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// headVersion is the version of the bytes of a head. A head of another one is a miss. A code that
// is added to headCodes needs no new version; one that changes its meaning does.
const headVersion = 1

// headCodes give the names that answers often have one byte, where they come in their usual case.
// They are the head's own: the ids of message differ from one program to the next.
var headCodes = [...]message.ID{
	1: message.Date, 2: message.ContentType, 3: message.CacheControl, 4: message.ETag, 5: message.LastModified, 6: message.Server,
	7: message.Vary, 8: message.Expires, 9: message.Age, 10: message.ContentEncoding, 11: message.ContentLanguage, 12: message.Via,
	13: message.AcceptRanges, 14: message.Link, 15: message.Location, 16: message.SetCookie, 17: message.ContentLength,
	18: message.StrictTransportSecurity, 19: message.XContentTypeOptions, 20: message.XFrameOptions, 21: message.ContentSecurityPolicy,
	22: message.AccessControlAllowOrigin, 23: message.AccessControlAllowMethods, 24: message.AccessControlAllowHeaders,
	25: message.AccessControlExposeHeaders, 26: message.AccessControlMaxAge, 27: message.AccessControlAllowCredentials,
	28: message.CDNCacheControl, 29: message.SurrogateControl, 30: message.SurrogateKey, 31: message.CacheGroups, 32: message.NoVarySearch,
	33: message.ContentDisposition, 34: message.ContentLocation, 35: message.ContentRange, 36: message.AltSvc, 37: message.Pragma,
	38: message.CacheStatus, 39: message.ServerTiming, 40: message.XRequestId,
}

// codeOf is the code of a name, 0 when it has none.
func codeOf(id message.ID) byte {
	if id == message.Other {
		return 0
	}
	for c := 1; c < len(headCodes); c++ {
		if headCodes[c] == id {
			return byte(c)
		}
	}
	return 0
}

const (
	headNoCache = 1 << iota
	headNoStale
	headImmutable
	headAged
	headOnlyBit
	headPartial
)

// stretch is a part of a representation that is stored in part: length bytes from first on. The
// record's body has them one behind the other.
type stretch struct{ first, length int64 }

// appendHead appends the head of an object:
//
//	version 1, flags 1, came 8, id 8; status, lifetime, initial age, while, error, disconnected, size + 1,
//	born, softened, parts, route, selector, selected, names of tags, fields
//
// Numbers are uvarints, durations seconds << 1 or nanoseconds << 1 | 1, strings and lists come behind their
// lengths. A line is the code of its name, or 0 and the name, and the value.
func appendHead(dst []byte, o *object) []byte {
	var flags byte
	for _, f := range [...]struct {
		is  bool
		bit byte
	}{
		{o.NoCache, headNoCache},
		{o.NoStale, headNoStale},
		{o.Immutable, headImmutable},
		{o.Aged, headAged},
		{o.headOnly, headOnlyBit},
		{o.partial(), headPartial},
	} {
		if f.is {
			flags |= f.bit
		}
	}
	dst = append(dst, headVersion, flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(o.Came))
	dst = binary.LittleEndian.AppendUint64(dst, o.id)
	dst = binary.AppendUvarint(dst, uint64(o.status))
	for _, d := range [...]time.Duration{o.Lifetime, o.InitialAge, o.While, o.Err, o.Disconnected} {
		dst = appendDuration(dst, d)
	}
	dst = binary.AppendUvarint(dst, uint64(o.size+1))
	dst = binary.AppendUvarint(dst, o.born)
	dst = binary.AppendUvarint(dst, o.softened)
	dst = binary.AppendUvarint(dst, uint64(o.numParts()))
	for i := range o.numParts() {
		p := o.part(i)
		dst = binary.AppendUvarint(dst, uint64(p.first))
		dst = binary.AppendUvarint(dst, uint64(p.length))
	}
	dst = append(binary.AppendUvarint(dst, uint64(len(o.route))), o.route...)
	dst = appendBytes(dst, o.selector)
	dst = appendBytes(dst, o.selected)
	dst = appendBytes(dst, o.names)
	dst = binary.AppendUvarint(dst, uint64(o.fields.Len()))
	for i := range o.fields.Len() {
		id, name, value := o.fields.At(i)
		code := codeOf(id)
		if code != 0 && string(name) != id.String() {
			code = 0
		}
		if dst = append(dst, code); code == 0 {
			dst = appendBytes(dst, name)
		}
		dst = appendBytes(dst, value)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendDuration(dst []byte, d time.Duration) []byte {
	d = max(d, 0)
	if d%time.Second == 0 {
		return binary.AppendUvarint(dst, uint64(d/time.Second)<<1)
	}
	return binary.AppendUvarint(dst, uint64(d)<<1|1)
}

// errHead says that bytes are no head of this version.
var errHead = errors.New("cache: a stored head cannot be read")

// maxHeadLines bounds the lines of a head; a record that says more is not ours.
const maxHeadLines = 1 << 12

// headFixed is the length of what comes first in a head.
const headFixed = 18

// headID reads the id alone; 0 when it is no head.
func headID(b []byte) uint64 {
	if len(b) < headFixed || b[0] != headVersion {
		return 0
	}
	return binary.LittleEndian.Uint64(b[10:])
}

func setHeadID(b []byte, id uint64) { binary.LittleEndian.PutUint64(b[10:], id) }

// decode reads what appendHead wrote into o, whose memory is used again, and allocates nothing once that has
// grown. Selector, selected and names are lent by b, and so is the route. After an error o is of no use.
func (o *object) decode(b []byte) (route []byte, err error) {
	if len(b) < headFixed || b[0] != headVersion {
		return nil, errHead
	}
	flags := b[1]
	o.Life = semantics.Life{
		Came: int64(binary.LittleEndian.Uint64(b[2:])), NoCache: flags&headNoCache != 0, NoStale: flags&headNoStale != 0,
		Immutable: flags&headImmutable != 0, Aged: flags&headAged != 0,
	}
	o.id = binary.LittleEndian.Uint64(b[10:])
	o.headOnly = flags&headOnlyBit != 0
	r := headReader{b: b[headFixed:]}
	o.status = int(r.number(999))
	o.Lifetime, o.InitialAge = r.duration(), r.duration()
	o.While, o.Err, o.Disconnected = r.duration(), r.duration(), r.duration()
	o.size = int64(r.number(math.MaxInt64)) - 1
	o.born, o.softened = r.number(math.MaxUint64), r.number(math.MaxUint64)
	o.parts, o.lay, o.body = nil, o.lay[:0], nil
	for n := r.number(maxParts); n > 0 && !r.bad; n-- {
		o.lay = append(o.lay, stretch{int64(r.number(math.MaxInt64)), int64(r.number(math.MaxInt64))})
	}
	route, o.selector, o.selected, o.names = r.bytes(), r.bytes(), r.bytes(), r.bytes()
	o.fields.Reset()
	for n := r.number(maxHeadLines); n > 0 && !r.bad; n-- {
		r.line(&o.fields)
	}
	if r.bad || len(r.b) > 0 || flags >= headPartial<<1 || o.status < 200 || (flags&headPartial != 0) != (len(o.lay) > 0) || !o.inOrder() {
		return nil, errHead
	}
	return route, nil
}

// inOrder says whether the parts lie in order within the whole.
func (o *object) inOrder() bool {
	end := int64(0)
	for _, p := range o.lay {
		if p.first < end || p.length <= 0 || p.length > o.size-p.first {
			return false
		}
		end = p.first + p.length
	}
	return true
}

// headReader reads a head; bad says that it ended too early or has a number that cannot be.
type headReader struct {
	b   []byte
	bad bool
}

// number is a uvarint, at most most.
func (r *headReader) number(most uint64) uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 && uint64(r.b[0]) <= most { // nearly all
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad = true
		r.b = nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *headReader) duration() time.Duration {
	v := r.number(math.MaxUint64)
	if v&1 != 0 {
		return time.Duration(v >> 1)
	}
	if v>>1 > uint64(math.MaxInt64/time.Second) {
		r.bad = true
		return 0
	}
	return time.Duration(v>>1) * time.Second
}

func (r *headReader) bytes() []byte {
	n := r.number(uint64(len(r.b)))
	if n > uint64(len(r.b)) { // what the number took is gone
		r.bad = true
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *headReader) line(to *message.Fields) {
	if b := r.b; len(b) >= 2 && b[1] < 0x80 && b[0] > 0 && int(b[0]) < len(headCodes) { // nearly all
		if end := 2 + int(b[1]); end <= len(b) {
			to.Add(headCodes[b[0]], b[2:end])
			r.b = b[end:]
			return
		}
	}
	if len(r.b) == 0 {
		r.bad = true
		return
	}
	code := int(r.b[0])
	r.b = r.b[1:]
	switch {
	case code >= len(headCodes):
		r.bad = true // of a later program
	case code == 0:
		name := r.bytes()
		value := r.bytes()
		if r.bad || len(name) == 0 {
			r.bad = true
			return
		}
		to.AddLine(name, value)
	default:
		to.Add(headCodes[code], r.bytes())
	}
}
