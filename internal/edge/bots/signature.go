package bots

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Bounds of what is read of signatures.
const (
	maxSignature  = 4 << 10
	maxSignatures = 4
	maxComponents = 16
	maxLife       = time.Hour
	maxSkew       = time.Minute
	webBotAuth    = "web-bot-auth"
)

// thumbprint is a key's id: that of its JSON Web Key (RFC 7638, RFC 8037 section 2).
func thumbprint(x string) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// signature checks the HTTP Message Signatures of x (RFC 9421) that are meant for this: tag web-bot-auth, of a key of
// the document, over the authority, for an hour at most. Why says what is wrong with the last one.
func (p *policy) signature(x *stage.Exchange) (bot, why string) {
	input, sig := lines(x.In, "Signature-Input"), lines(x.In, "Signature")
	if len(input) > maxSignature || len(sig) > maxSignature {
		return "", "the signature is longer than is read"
	}
	inputs, err := httpsfv.UnmarshalDictionary([]string{input})
	if err != nil {
		return "", "Signature-Input is no dictionary of RFC 8941"
	}
	sigs, err := httpsfv.UnmarshalDictionary([]string{sig})
	if err != nil {
		return "", "Signature is no dictionary of RFC 8941"
	}
	why = "no signature has the tag web-bot-auth"
	labels := inputs.Names()
	for _, label := range labels[:min(len(labels), maxSignatures)] {
		m, _ := inputs.Get(label)
		list, ok := m.(httpsfv.InnerList)
		if !ok || param[string](list.Params, "tag") != webBotAuth {
			continue
		}
		s, _ := sigs.Get(label)
		item, _ := s.(httpsfv.Item)
		value, _ := item.Value.([]byte)
		if bot, why = p.check(x, &list, value); bot != "" {
			return bot, ""
		}
	}
	return "", why
}

// lines joins the lines of a field (RFC 9110 section 5.3).
func lines(in *message.Request, field string) string {
	var parts []string
	for i := range in.Len() {
		if _, n, v := in.At(i); message.EqualFold(n, field) {
			parts = append(parts, string(bytes.TrimSpace(v)))
		}
	}
	return strings.Join(parts, ", ")
}

func param[T any](p *httpsfv.Params, name string) T {
	var none T
	if p == nil {
		return none
	}
	v, _ := p.Get(name)
	t, _ := v.(T)
	return t
}

// check checks one signature.
func (p *policy) check(x *stage.Exchange, list *httpsfv.InnerList, value []byte) (bot, why string) {
	k, ok := p.keys[param[string](list.Params, "keyid")]
	if !ok {
		return "", "the signature's key is none of the document's"
	}
	if a := param[string](list.Params, "alg"); a != "" && a != "ed25519" {
		return "", "the signature is not of Ed25519"
	}
	created, expires := param[int64](list.Params, "created"), param[int64](list.Params, "expires")
	now := x.Start
	switch {
	case created == 0 || expires == 0:
		return "", "the signature does not say when it was made and when it ends"
	case time.Unix(created, 0).After(now.Add(maxSkew)), !time.Unix(expires, 0).After(now):
		return "", "the signature is of another time"
	case expires-created > int64(maxLife/time.Second):
		return "", "the signature is good for longer than an hour"
	}
	base, ok := signatureBase(x, list)
	if !ok {
		return "", "the signature covers what is not known here, or not the authority"
	}
	if len(value) != ed25519.SignatureSize || !ed25519.Verify(k.public, base, value) {
		return "", "the signature does not verify"
	}
	return k.bot, ""
}

// signatureBase writes what was signed (RFC 9421 section 2.5). It holds the authority, or is none.
func signatureBase(x *stage.Exchange, list *httpsfv.InnerList) ([]byte, bool) {
	if len(list.Items) > maxComponents {
		return nil, false
	}
	var b bytes.Buffer
	authority := false
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok {
			return nil, false
		}
		id, err := httpsfv.Marshal(item)
		if err != nil {
			return nil, false
		}
		v, ok := component(x, name, item.Params)
		if !ok {
			return nil, false
		}
		authority = authority || name == "@authority" || name == "@target-uri"
		b.WriteString(id + ": " + v + "\n")
	}
	params, err := httpsfv.Marshal(*list)
	if err != nil || !authority {
		return nil, false
	}
	b.WriteString(`"@signature-params": ` + params)
	return b.Bytes(), true
}

// component is the value of a component (RFC 9421 sections 2.1 and 2.2).
func component(x *stage.Exchange, name string, params *httpsfv.Params) (string, bool) {
	in := x.In
	keyed := param[string](params, "key")
	if params != nil && len(params.Names()) > 0 && (keyed == "" || len(params.Names()) > 1) {
		return "", false
	}
	if strings.HasPrefix(name, "@") && keyed != "" {
		return "", false
	}
	scheme := "http"
	if in.Secure {
		scheme = "https"
	}
	authority := strings.ToLower(string(in.Authority()))
	authority = strings.TrimSuffix(authority, map[bool]string{true: ":443", false: ":80"}[in.Secure])
	query := "?" + string(in.Query())
	switch name {
	case "@authority":
		return authority, true
	case "@method":
		return string(in.MethodName()), true
	case "@scheme":
		return scheme, true
	case "@path":
		return string(in.Path()), true
	case "@query":
		return query, true
	case "@target-uri":
		if !in.HasQuery() {
			query = ""
		}
		return scheme + "://" + authority + string(in.Path()) + query, true
	}
	if strings.HasPrefix(name, "@") || name != strings.ToLower(name) || in.Lookup(name) == nil {
		return "", false
	}
	v := lines(in, name)
	if keyed == "" {
		return v, true
	}
	d, err := httpsfv.UnmarshalDictionary([]string{v})
	if err != nil {
		return "", false
	}
	m, ok := d.Get(keyed)
	if !ok {
		return "", false
	}
	item, ok := m.(httpsfv.Item)
	if !ok {
		return "", false
	}
	out, err := httpsfv.Marshal(item)
	return out, err == nil
}
