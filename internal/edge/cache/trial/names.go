package trial

import (
	"bytes"
	"strings"

	"github.com/relais-edge/relais/internal/http/message"
)

// sessionLike are parts of the names of cookies that may stand for a person, and are not sent again.
var sessionLike = [...]string{
	"sess", "sid", "auth", "token", "jwt", "login", "user", "account", "customer", "csrf", "xsrf", "secret", "remember",
	"identity", "member", "admin", "wordpress_", "wp-", "connect", "key", "hash", "__host-", "__secure-",
}

// actionLike are words in the elements of paths that may do something, or are about one person.
var actionLike = [...]string{
	"cart", "basket", "checkout", "order", "payment", "pay", "logout", "signout", "login", "signin", "register",
	"account", "profile", "customer", "admin", "api", "ajax", "add", "remove", "delete", "update", "save", "submit",
	"confirm", "verify", "activate", "reset", "unsubscribe", "subscribe", "token", "oauth", "callback", "webhook",
	"wishlist", "compare", "download", "export", "cancel", "redeem", "vote", "review", "warenkorb", "kasse", "panier", "session",
}

// secretLike are parts of the names of parameters whose value may do something, or open something.
var secretLike = [...]string{
	"token", "key", "sig", "nonce", "code", "sess", "sid", "auth", "pass", "csrf", "hash", "action", "add", "remove",
	"delete", "do", "cmd", "op", "secret", "jwt", "otp", "hmac", "cart", "basket", "order", "logout", "unsubscribe",
}

// isSession says whether a cookie's name looks like that of a session, or is one that the policy keeps.
func isSession(name string, keep []string) bool {
	low := strings.ToLower(name)
	for _, part := range sessionLike {
		if strings.Contains(low, part) {
			return true
		}
	}
	for _, k := range keep {
		if stem, any := strings.CutSuffix(k, "*"); k == name || any && strings.HasPrefix(name, stem) {
			return true
		}
	}
	return false
}

// isAction says whether a path or query looks as if a GET of it did something, or were about one person.
func isAction(path, query []byte) bool {
	for word := range bytes.FieldsFuncSeq(bytes.ToLower(path), notLetter) {
		for _, a := range actionLike {
			if string(word) == a || string(word) == a+"s" {
				return true
			}
		}
	}
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(pair, []byte{'='})
		if bytes.ContainsRune(name, '%') || len(value) > 64 {
			return true // what cannot be told by its name
		}
		name = bytes.ToLower(name)
		for _, s := range secretLike {
			if len(s) <= 3 && string(name) == s || len(s) > 3 && bytes.Contains(name, []byte(s)) {
				return true
			}
		}
	}
	return false
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }

// cookie is one of a request.
type cookie struct{ name, value string }

// maxCookies bounds the cookies of a request that are told apart; one with more is not compared.
const maxCookies = 40

// cookiesOf lists the cookies of a request; false when there are too many.
func cookiesOf(f *message.Fields) ([]cookie, bool) {
	var out []cookie
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, v := f.At(i)
		for pair := range bytes.SplitSeq(v, []byte{';'}) {
			name, value, _ := bytes.Cut(bytes.TrimSpace(pair), []byte{'='})
			if len(name) == 0 {
				continue
			}
			if len(out) == maxCookies {
				return nil, false
			}
			out = append(out, cookie{string(name), string(value)})
		}
	}
	return out, true
}

// groupOf is the part of a site that a path belongs to: its first element.
func groupOf(path []byte) string {
	if len(path) < 2 {
		return "/"
	}
	first, rest, more := bytes.Cut(path[1:], []byte{'/'})
	if !more || len(rest) == 0 && len(first) == 0 {
		return "/" + string(first)
	}
	return "/" + string(first) + "/*"
}
