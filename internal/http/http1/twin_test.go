package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// sight is a head as a reader without our parser sees it: lines by LF, names by colon.
type sight struct {
	all   string   // up to the empty line, or to the end
	first string   // with its CR
	lines []string // the others, without CR
}

func look(in []byte) *sight {
	s := &sight{all: string(in)}
	if i := emptyLine.FindStringIndex(s.all); i != nil {
		s.all = s.all[:i[1]]
	}
	lines := strings.Split(s.all, "\n")
	s.first = lines[0]
	for _, l := range lines[1:] {
		if l = strings.TrimSuffix(l, "\r"); l != "" {
			s.lines = append(s.lines, l)
		}
	}
	return s
}

// values are those of a name, as a lenient reader has them.
func (s *sight) values(name string) (v []string) {
	for _, l := range s.lines {
		if n, value, ok := strings.Cut(l, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			v = append(v, strings.Trim(value, " \t"))
		}
	}
	return v
}

func (s *sight) any(re *regexp.Regexp) bool {
	for _, l := range s.lines {
		if re.MatchString(l) {
			return true
		}
	}
	return false
}

// others says whether a name is there with more values than one, or with one that is not of a form.
func (s *sight) others(name string, form *regexp.Regexp) bool {
	v := s.values(name)
	return len(v) > 1 || len(v) == 1 && !form.MatchString(v[0])
}

var (
	emptyLine   = regexp.MustCompile(`\n\r?\n`)
	goodLine    = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+ [^\\x00-\\x20\\x7f#]+ HTTP/1\\.[01]\r$")
	goodStatus  = regexp.MustCompile(`^HTTP/1\.[01] [1-9][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?\r$`)
	ourVersion  = regexp.MustCompile(`HTTP/1\.[01]\r?$`)
	oldVersion  = regexp.MustCompile(`^HTTP/1\.0 |HTTP/1\.0\r?$|HTTP/0`)
	pathForm    = regexp.MustCompile(`^[^ ]+ /`)
	otherForm   = regexp.MustCompile(`^CONNECT |://`)
	plainHost   = regexp.MustCompile(`^[-.0-9A-Za-z]{1,100}(:[0-9]{1,4})?$`)
	number      = regexp.MustCompile(`^[0-9]{1,18}$`)
	hops        = regexp.MustCompile(`(?i)^[ \t]*(close|keep-alive|upgrade|te)([ \t]*,[ \t]*(close|keep-alive|upgrade|te))*[ \t]*$`)
	goOn        = regexp.MustCompile(`(?i)^100-continue$`)
	bareLF      = regexp.MustCompile(`(^|[^\r])\n`)
	bareCR      = regexp.MustCompile(`\r([^\n]|$)`)
	control     = regexp.MustCompile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
	folded      = regexp.MustCompile(`^[ \t]`)
	spacedName  = regexp.MustCompile(`^[^:]+[ \t]`)
	nameless    = regexp.MustCompile(`^:`)
	underscored = regexp.MustCompile(`^[^:]*_[^:]*:`)
	number0     = regexp.MustCompile(`^0[0-9]`)
)

// rule is where we and the twin, net/http, may judge a message differently: why, and whether it is the
// case, seen without our parser. A difference that no rule covers is a fault of one of us.
type rule struct {
	why string
	is  func(s *sight) bool
}

// stricter are our codes for which the twin may take a message.
func stricter(lim *Limits) map[string]rule {
	return map[string]rule{
		"head_too_long":    {"limits are ours", func(s *sight) bool { return len(s.all) > lim.HeadBytes }},
		"target_too_long":  {"limits are ours", func(s *sight) bool { return len(s.first) > lim.TargetBytes }},
		"too_many_fields":  {"limits are ours", func(s *sight) bool { return len(s.lines) > lim.Fields }},
		"method_too_long":  {"limits are ours", func(s *sight) bool { return strings.IndexByte(s.first, ' ') > maxMethod }},
		"bare_lf":          {"RFC 9112 section 2.2: a recipient may take LF for a line's end; two that differ are a hole", func(s *sight) bool { return bareLF.MatchString(s.all) }},
		"bare_cr":          {"RFC 9112 section 2.2: a bare CR is invalid, or a space", func(s *sight) bool { return bareCR.MatchString(s.all) }},
		"control_byte":     {"RFC 9110 section 5.5: values with control bytes; its server looks at them later", func(s *sight) bool { return control.MatchString(s.all) }},
		"obs_fold":         {"RFC 9112 section 5.2: folded lines are refused, or made one", func(s *sight) bool { return s.any(folded) }},
		"bad_request_line": {"RFC 9112 section 3: it takes a fragment, and any version behind which a bare LF comes", func(s *sight) bool { return !goodLine.MatchString(s.first) }},
		"bad_status_line":  {"RFC 9112 section 4: it takes any version and several spaces", func(s *sight) bool { return !goodStatus.MatchString(s.first) }},
		"bad_target":       {"RFC 9112 section 3.2: it takes targets of other schemes, and none for CONNECT", func(s *sight) bool { return !pathForm.MatchString(s.first) || otherForm.MatchString(s.first) }},

		"http_version_not_supported": {"RFC 9112 section 2.3: it takes any HTTP/x.y", func(s *sight) bool { return !ourVersion.MatchString(s.first) }},

		"space_before_colon": {"RFC 9112 section 5.1: such a name is refused; its server looks later", func(s *sight) bool { return s.any(spacedName) }},
		"bad_field_name":     {"RFC 9112 section 5: it leaves out lines without a name", func(s *sight) bool { return s.any(nameless) }},

		"no_host":      {"RFC 9112 section 3.2: HTTP/1.1 without Host is refused; its server looks later", func(s *sight) bool { return len(s.values("host")) == 0 }},
		"bad_host":     {"RFC 9112 section 3.2: Host that is no host is refused; its server looks later", func(s *sight) bool { return s.others("host", plainHost) }},
		"host_differs": {"RFC 9112 section 3.2.2: the target's authority counts; origins that take Host are a hole", func(s *sight) bool { return otherForm.MatchString(s.first) }},

		"bad_content_length":          {"RFC 9112 section 6.3: one decimal number; more than once it may be refused", func(s *sight) bool { return s.others("content-length", number) }},
		"length_and_encoding":         {"RFC 9112 section 6.1: both may be refused", func(s *sight) bool { return s.values("content-length") != nil && s.values("transfer-encoding") != nil }},
		"transfer_encoding_on_http10": {"RFC 9112 section 6.1: the framing is faulty; it leaves the field out", old},
		"bad_transfer_encoding":       {"RFC 9112 section 6.1: the framing is faulty; it leaves the field out on HTTP/1.0", old},
		"unknown_transfer_encoding":   {"RFC 9112 section 6.1: the framing is faulty; it leaves the field out on HTTP/1.0", old},

		"bad_connection":       {"RFC 9110 section 7.6.1: tokens, of fields for one hop", func(s *sight) bool { return s.others("connection", hops) }},
		"expectation_failed":   {"RFC 9110 section 10.1.1: unknown expectations may be refused", func(s *sight) bool { return s.others("expect", goOn) }},
		"field_name_collision": {"RFC 3875 section 4.1.18: origins read _ as -", func(s *sight) bool { return s.any(underscored) }},
	}
}

func old(s *sight) bool {
	return oldVersion.MatchString(s.first) && s.values("transfer-encoding") != nil
}

// looser are beginnings of what the twin says of a message that we take.
var looser = []struct {
	says string
	rule
}{
	{"invalid URL escape", rule{"RFC 3986 section 2.1: escapes are the origin's to read; it wants whole ones", func(s *sight) bool { return strings.Contains(s.first, "%") }}},
	{"bad trailer key", rule{"RFC 9110 section 6.6.2: Trailer is a hint; what must not be a trailer is left out when it comes", func(s *sight) bool { return s.values("trailer") != nil }}},
	{"multiple Content-Length", rule{"RFC 9112 section 6.3: the same number again; it compares letters", func(s *sight) bool {
		for _, v := range s.values("content-length") {
			if number0.MatchString(v) {
				return true
			}
		}
		return false
	}}},
}

// judged fails when one of us refuses a message and the other does not, and no rule says why.
func judged(t *testing.T, in []byte, flt *fault, err error, rules map[string]rule) {
	t.Helper()
	s := look(in)
	switch {
	case flt != nil && err == nil:
		if r, ok := rules[flt.code]; !ok || !r.is(s) {
			t.Fatalf("we say %v, net/http takes it", flt)
		}
	case flt == nil && err != nil:
		for _, l := range looser {
			if strings.Contains(err.Error(), l.says) && l.is(s) {
				return
			}
		}
		t.Fatalf("we take it, net/http says %v", err)
	}
}

// stricterChunked are our codes for which the twin may take a chunked body (RFC 9112 section 7.1).
var stricterChunked = map[string]struct {
	why string
	is  func(in []byte) bool
}{
	"bad_chunk_size":      {"section 7.1: 1*HEXDIG; it takes 16 of them and white space behind, and we 15", chunkSize.Match},
	"bad_chunk_extension": {"section 7.1.1: it does not look at extensions; ours are bounded, without control bytes", chunkExtended.Match},
	"bad_trailer":         {"section 7.1.2: it takes LF for a line's end, and names that are no tokens", chunkTrailer.Match},
	"trailer_too_large":   {"limits are ours", func(in []byte) bool { return len(in) > maxTrailer || bytes.Count(in, []byte("\n")) > maxTrailerFields }},
	"chunk_overhead":      {"limits are ours", func(in []byte) bool { return len(in) > maxChunkWaste }},
}

var (
	chunkSize     = regexp.MustCompile(`(?i)[0-9a-f]{16}|[0-9a-f][ \t]|\r\r`)
	chunkExtended = regexp.MustCompile(`(?i)[0-9a-f][ \t]*;`)
	chunkTrailer  = regexp.MustCompile(`0[^\n]*\r\n([^\r]|\r[^\n])`)
)

// tooMuchForTwin says whether the twin's limits are over: 4096 bytes of trailers, or 16 KiB of framing that
// chunks of 16 bytes would not need.
func tooMuchForTwin(in []byte, err error) bool {
	return len(in) > 4096 && (strings.Contains(err.Error(), "suspiciously long trailer") || strings.Contains(err.Error(), "too much non-data"))
}

// sameHost says whether an authority is the twin's, which takes escapes out of a name in a target (RFC 3986
// section 2.4).
func sameHost(ours []byte, twin string) bool {
	plain, err := url.PathUnescape(string(ours))
	return string(ours) == twin || err == nil && plain == twin
}

// TestTheRulesOfTheTwinSeeWhatTheParserSees holds that a rule covers each head that we refuse and the twin
// takes, and that none covers a good one.
func TestTheRulesOfTheTwinSeeWhatTheParserSees(t *testing.T) {
	rules := stricter(testLimits())
	for _, c := range refused {
		_, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.in)))
		if r, ok := rules[c.code]; err == nil && (!ok || !r.is(look([]byte(c.in)))) {
			t.Errorf("%.200q: %s is not seen", c.in, c.code)
		}
	}
	good := look([]byte(browserGet))
	for code, r := range rules {
		if code != "bad_status_line" && r.is(good) {
			t.Errorf("%s is seen where it is not", code)
		}
	}
}
