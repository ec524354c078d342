package hpack

import (
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
)

// fixed is an entry of the static table.
type fixed struct {
	name, value []byte
	id          message.ID
}

// statics is the static table (RFC 7541 appendix A): names, each with a value where it has one.
const statics = `
:authority
:method|GET
:method|POST
:path|/
:path|/index.html
:scheme|http
:scheme|https
:status|200
:status|204
:status|206
:status|304
:status|400
:status|404
:status|500
accept-charset
accept-encoding|gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
`

// numStatic is the number of entries of the static table; the dynamic table follows it.
const numStatic = 61

// static is the static table by index; index 0 names nothing.
var static = makeStatic()

func makeStatic() *[numStatic + 1]fixed {
	t := &[numStatic + 1]fixed{}
	for i, line := range strings.Split(strings.Trim(statics, "\n"), "\n") {
		name, value, _ := strings.Cut(line, "|")
		id := message.KnownID([]byte(name))
		if name[0] == ':' {
			id = pseudo([]byte(name))
		}
		t[i+1] = fixed{[]byte(name), []byte(value), id}
	}
	return t
}

// staticIndex maps an id to the first entry of the static table with its name, or 0.
var staticIndex = makeStaticIndex()

func makeStaticIndex() *[256]uint8 {
	t := &[256]uint8{}
	for i := numStatic; i > 0; i-- {
		if id := static[i].id; id != message.Other {
			t[id] = uint8(i)
		}
	}
	return t
}
