package v1

import (
	"slices"
	"strings"
)

// Variable is a value of a request that a header value or a page may hold as ${name}.
type Variable string

// The variables.
const (
	VarClientIP         Variable = "client.ip"
	VarClientPort       Variable = "client.port"
	VarRequestID        Variable = "request.id"
	VarRequestMethod    Variable = "request.method"
	VarRequestScheme    Variable = "request.scheme"
	VarRequestHost      Variable = "request.host"
	VarRequestAuthority Variable = "request.authority"
	VarRequestPath      Variable = "request.path"
	VarRequestQuery     Variable = "request.query"
	VarHTTPVersion      Variable = "http.version"
	VarTLSVersion       Variable = "tls.version"
	VarTLSCipher        Variable = "tls.cipher"
	VarTLSSNI           Variable = "tls.sni"
	VarSiteName         Variable = "site.name"
	VarRouteName        Variable = "route.name"
	VarVisitorClass     Variable = "visitor.class"
	VarResponseStatus   Variable = "response.status"
	VarRoomPosition     Variable = "room.position"
	VarRoomWait         Variable = "room.wait"
	VarRoomRefresh      Variable = "room.refresh"
)

// where a variable may stand.
type place uint8

const (
	inRequest place = 1 << iota
	inResponse
	inPage
	inRoom // the page of a waiting room
)

var variables = map[Variable]place{
	VarClientIP: inRequest | inResponse, VarClientPort: inRequest | inResponse,
	VarRequestID: inRequest | inResponse | inPage | inRoom, VarRequestMethod: inRequest | inResponse,
	VarRequestScheme: inRequest | inResponse, VarRequestHost: inRequest | inResponse | inPage | inRoom,
	VarRequestAuthority: inRequest | inResponse, VarRequestPath: inRequest | inResponse,
	VarRequestQuery: inRequest | inResponse, VarHTTPVersion: inRequest | inResponse,
	VarTLSVersion: inRequest | inResponse, VarTLSCipher: inRequest | inResponse, VarTLSSNI: inRequest | inResponse,
	VarSiteName: inRequest | inResponse, VarRouteName: inRequest | inResponse, VarVisitorClass: inRequest | inResponse,
	VarResponseStatus: inResponse | inPage | inRoom,
	VarRoomPosition:   inRoom, VarRoomWait: inRoom, VarRoomRefresh: inRoom,
}

// Segment is a part of a template: a text, or a variable when Variable is not empty.
type Segment struct {
	Text     string
	Variable Variable
}

// Template splits a text at its variables. What looks like a variable and is none stays text.
func Template(s string) []Segment {
	var out []Segment
	text := 0
	for i := 0; i+1 < len(s); i++ {
		if s[i] != '$' || s[i+1] != '{' {
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			break
		}
		v := Variable(s[i+2 : i+end])
		if _, ok := variables[v]; !ok {
			continue
		}
		if i > text {
			out = append(out, Segment{Text: s[text:i]})
		}
		out = append(out, Segment{Variable: v})
		text = i + end + 1
		i = text - 1
	}
	if text < len(s) {
		out = append(out, Segment{Text: s[text:]})
	}
	return out
}

// template reports variables that there are not. In a page, which may hold programs of its own, only
// what has the form of ours is looked at.
func (c *checker) template(field, s string, at place) {
	for rest := s; ; {
		i := strings.Index(rest, "${")
		if i < 0 {
			return
		}
		rest = rest[i+2:]
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			if at&(inPage|inRoom) == 0 {
				c.add(field, "has a ${ that is not closed", "write ${NAME}, such as ${request.id}")
			}
			return
		}
		if at&(inPage|inRoom) != 0 && !ourForm(name) {
			continue
		}
		rest = after
		may, known := variables[Variable(name)]
		switch {
		case !known:
			fix := "write one of " + strings.Join(variablesIn(at), ", ")
			if near := nearVariable(name, at); near != "" {
				fix = "did you mean ${" + near + "}?"
			}
			c.add(field, quote("${"+name+"}")+" is not a variable", fix)
		case may&at == 0:
			c.add(field, quote("${"+name+"}")+" is not known here", "write one of "+strings.Join(variablesIn(at), ", "))
		}
	}
}

// ourForm says whether a name has a dot and the first word of one of our variables.
func ourForm(name string) bool {
	first, _, dot := strings.Cut(name, ".")
	if !dot {
		return false
	}
	for v := range variables {
		if strings.HasPrefix(string(v), first+".") {
			return true
		}
	}
	return false
}

func variablesIn(at place) []string {
	var out []string
	for v, may := range variables {
		if may&at != 0 {
			out = append(out, string(v))
		}
	}
	slices.Sort(out)
	return out
}

// nearVariable finds the variable that was meant: its last word, or one with few letters to change.
func nearVariable(name string, at place) string {
	list := variablesIn(at)
	for _, v := range list {
		if _, last, _ := strings.Cut(v, "."); strings.EqualFold(last, name) {
			return v
		}
	}
	return Suggest(name, slices.Values(list))
}
