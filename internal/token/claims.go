package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Claims are what a token says, once its signature was found good.
type Claims struct{ all map[string]any }

// Text is a claim as text; empty when it is no text.
func (c Claims) Text(name string) string {
	s, _ := c.all[name].(string)
	return s
}

// maxSeconds is far beyond any date and small enough to be a time.
const maxSeconds = 1 << 40

// Time is a claim of RFC 7519 section 2 (NumericDate). There says whether the claim is there, good whether it
// is a date.
func (c Claims) Time(name string) (at time.Time, there, good bool) {
	v, there := c.all[name]
	if !there {
		return time.Time{}, false, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, true, false
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxSeconds {
		return time.Time{}, true, false
	}
	return time.Unix(int64(f), 0), true, true
}

// find gives a claim by its whole name, or else by its path through objects.
func (c Claims) find(name string) (any, bool) {
	if v, ok := c.all[name]; ok {
		return v, true
	}
	at, rest := c.all, name
	for {
		head, tail, more := strings.Cut(rest, ".")
		v, ok := at[head]
		if !ok {
			return nil, false
		}
		if !more {
			return v, true
		}
		if at, ok = v.(map[string]any); !ok {
			return nil, false
		}
		rest = tail
	}
}

// Certificate is the SHA-256 digest of the certificate that the token is bound to (RFC 8705 section 3.1), in
// lower-case hexadecimal. There says whether the token is bound to one, good whether that is a digest.
func (c Claims) Certificate() (digest string, there, good bool) {
	cnf, ok := c.all["cnf"].(map[string]any)
	if !ok {
		_, there = c.all["cnf"]
		return "", false, !there
	}
	v, there := cnf["x5t#S256"]
	if !there {
		return "", false, true
	}
	s, _ := v.(string)
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != sha256.Size {
		return "", true, false
	}
	return hex.EncodeToString(b), true, true
}

// Values are the texts of a claim: of a list each entry, of scope and scp each word (RFC 8693 section 4.2).
func (c Claims) Values(name string) (values []string, there bool) {
	v, ok := c.find(name)
	if !ok {
		return nil, false
	}
	if list, is := v.([]any); is {
		for _, e := range list {
			values = append(values, write(e))
		}
		return values, true
	}
	s := write(v)
	if name == "scope" || name == "scp" {
		return strings.Fields(s), true
	}
	return []string{s}, true
}

// Field writes a claim as the value of a field; ok is false where it cannot stand in one.
func (c Claims) Field(name string) (value string, ok bool) {
	v, there := c.find(name)
	if !there {
		return "", false
	}
	if list, is := v.([]any); is {
		parts := make([]string, len(list))
		for i, e := range list {
			parts[i] = write(e)
			if strings.Contains(parts[i], ",") {
				return "", false // it would become two
			}
		}
		value = strings.Join(parts, ",")
	} else {
		value = write(v)
	}
	if len(value) > maxField || strings.TrimSpace(value) != value {
		return "", false
	}
	for i := 0; i < len(value); i++ {
		if b := value[i]; b < ' ' || b == 0x7f { // RFC 9110 section 5.5
			return "", false
		}
	}
	return value, true
}

// maxField bounds what one claim adds to a request.
const maxField = 4 << 10

// write gives a value as text; what is no scalar becomes JSON.
func write(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	case nil:
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
