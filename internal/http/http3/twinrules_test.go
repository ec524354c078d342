package http3

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/quic-go/qpack"

	"github.com/relais-edge/relais/internal/http/message"
)

// looser are where we take what the twin refuses, or read what it does not, each for a reason.
var looser = []struct {
	name string
	is   func(r *message.Request, s shape) bool
}{
	{"it compares Host and :authority letter by letter; names of hosts have no case (RFC 3986 section 3.2.2)", func(r *message.Request, _ shape) bool {
		h := r.Get(message.Host)
		return h != nil && string(h) != string(r.Authority())
	}},
	{"it wants 'trailers' in lower case; codings have no case (RFC 9110 section 10.1.4)", func(r *message.Request, _ shape) bool {
		v := r.Get(message.TE)
		return v != nil && string(v) != "trailers"
	}},
	{"it wants the target to be a URI of net/url, which wants whole escapes; an origin may read others", func(r *message.Request, _ shape) bool {
		uri := string(r.Path())
		if r.HasQuery() {
			uri += "?" + string(r.Query())
		}
		_, err := url.ParseRequestURI(uri)
		return uri != "" && err != nil // a plain CONNECT has none
	}},
	{"it refuses trailers with fields that do not belong there; we leave them out (RFC 9110 section 6.5.1)", func(_ *message.Request, s shape) bool {
		return s.sections > 1
	}},
	{"it wants a Base of 0, which may be anything where nothing refers to it (RFC 9204 section 4.5.1.2)", func(_ *message.Request, s shape) bool { return s.base }},
	{"it takes Trailer out of the head", func(r *message.Request, _ shape) bool { return r.Has(message.Trailer) }},
}

// rule is where we refuse what the twin may take: why, and whether it is the case, seen without our own
// parser. A difference that no rule covers is a fault of one of us.
type rule struct {
	why string
	is  func(s shape) bool
}

// twinLimits are those of our server beside the twin.
var twinLimits = Limits{HeadBytes: 4096, Fields: 20, TargetBytes: 1000}

// stricter are the rules, by what we say.
var stricter = map[string]rule{
	"head_too_long":         {"limits are ours", func(s shape) bool { return s.bytes > twinLimits.HeadBytes/2 }},
	"target_too_long":       {"limits are ours", func(s shape) bool { return len(s.value(":path")) >= twinLimits.TargetBytes }},
	"too_many_fields":       {"limits are ours", func(s shape) bool { return len(s.head) > twinLimits.Fields }},
	"method_too_long":       {"limits are ours", func(s shape) bool { return len(s.value(":method")) > maxMethod }},
	errFloodUnknown.Error(): {"limits are ours", func(s shape) bool { return s.frames > maxUnknown || s.cut }},
	errFloodEmpty.Error():   {"limits are ours", func(s shape) bool { return s.frames > maxEmptyData }},
	"bad_host":              {"RFC 3986 section 3.2: it does not look at what a host is written of", func(s shape) bool { return !plainHost.MatchString(s.host()) }},
	"bad_target":            {"RFC 3986 section 2: it takes bytes that must be escaped", func(s shape) bool { return !plainTarget.MatchString(s.value(":path")) }},
	"bad_scheme":            {"RFC 9114 section 4.3.1: it takes any scheme", func(s shape) bool { return !strings.EqualFold(s.value(":scheme"), "https") }},
	"bad_connect":           {"RFC 9114 section 4.4: it takes an authority without a port", func(s shape) bool { return s.value(":method") == "CONNECT" }},
	"bad_pseudo_header":     {"RFC 9114 section 4.3.1: it takes a request without :scheme", func(s shape) bool { return len(s.values(":scheme")) == 0 }},
	"unknown_protocol":      {"RFC 9220 section 3: we speak WebSocket alone", func(s shape) bool { return !strings.EqualFold(s.value(":protocol"), "websocket") }},
	"bad_content_length": {"RFC 9110 section 8.6: it takes a repeated one, an empty one, and 19 digits", func(s shape) bool {
		return len(s.values("content-length")) > 1 || !number.MatchString(s.value("content-length"))
	}},
	"control_byte":         {"RFC 9114 section 4.2: it takes space around a value", func(s shape) bool { return s.spaced }},
	"field_name_collision": {"RFC 3875 section 4.1.18: origins read _ as -", func(s shape) bool { return s.underscored }},
	"expectation_failed": {"RFC 9110 section 10.1.1: unknown expectations may be refused", func(s shape) bool {
		return len(s.values("expect")) > 1 || !strings.EqualFold(s.value("expect"), "100-continue")
	}},
	errQPACK.Error():       {"RFC 9204 section 4.5.1.2: it takes a Base below 0", func(s shape) bool { return s.below }},
	errFrameCut.Error():    {"RFC 9114 section 7.1: it reads a stream that ends within a frame's head as whole", func(s shape) bool { return s.cut }},
	errFrameTunnel.Error(): {"RFC 9114 section 4.4: it takes trailers of a CONNECT", func(s shape) bool { return (s.sections > 1 || s.cut) && s.value(":method") == "CONNECT" }},
	errMalformed.Error():   {"RFC 9114 section 4.2: it takes space around a value in trailers, and more of them", func(s shape) bool { return s.sections > 1 || s.cut }},
	errFrameType.Error():   {"RFC 9114 section 7.2: it skips CANCEL_PUSH, PUSH_PROMISE, MAX_PUSH_ID and PRIORITY_UPDATE, and reads one that is cut as the end", func(s shape) bool { return s.misplaced }},
}

// excused says whether there is a reason why we take what the twin refuses, or read it in another way.
func excused(x *exchange, stream []byte) bool {
	for _, q := range looser {
		if q.is(&x.req, shapeOf(stream)) {
			return true
		}
	}
	return false
}

var (
	plainHost   = regexp.MustCompile(`^[-.0-9A-Za-z]{1,100}(:[0-9]{1,4})?$`)
	plainTarget = regexp.MustCompile(`^/[!"$-~]*$`)
	number      = regexp.MustCompile(`^[0-9]{1,18}$`)
)

// shape is what of a stream matters to the rules.
type shape struct {
	frames, sections int                 // of any type, HEADERS
	cut              bool                // the last frame is not whole
	misplaced        bool                // there is a frame that does not belong on a request stream
	base             bool                // a section has a Base other than 0
	below            bool                // one has a Base below 0
	spaced           bool                // a value begins or ends with white space
	underscored      bool                // a name has an underscore
	head             []qpack.HeaderField // of the first section
	bytes            int                 // in them, or in the section
}

func shapeOf(stream []byte) (s shape) {
	for len(stream) > 0 {
		kind, length, n := frameHead(stream)
		s.frames++
		s.misplaced = s.misplaced || n > 0 && (kind >= 2 && kind <= 9 || kind == frameMaxPushID || kind == framePriorityRequest || kind == framePriorityPush)
		if n == 0 || uint64(len(stream)-n) < length {
			s.cut = true
			break
		}
		p := stream[n : n+int(length)]
		if kind == frameHeaders {
			s.section(p)
		}
		stream = stream[n+int(length):]
	}
	return s
}

func (s *shape) section(p []byte) {
	s.sections++
	s.base = s.base || len(p) > 1 && p[1] != 0
	s.below = s.below || len(p) > 1 && p[1] == 0x80
	if s.sections > 1 {
		return
	}
	s.bytes = len(p)
	next := qpack.NewDecoder().Decode(p)
	for f, err := next(); err == nil; f, err = next() {
		s.head = append(s.head, f)
		s.bytes += len(f.Name) + len(f.Value)
		s.spaced = s.spaced || strings.Trim(f.Value, " \t") != f.Value
		s.underscored = s.underscored || strings.Contains(f.Name, "_")
	}
}

func (s *shape) values(name string) (v []string) {
	for _, f := range s.head {
		if f.Name == name {
			v = append(v, f.Value)
		}
	}
	return v
}

func (s *shape) value(name string) string { return strings.Join(s.values(name), ",") }

func (s *shape) host() string {
	if v := s.values(":authority"); v != nil {
		return v[0]
	}
	return s.value("host")
}
