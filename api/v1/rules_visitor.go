package v1

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// minTokenSecret is the least length of what signs visitors' tokens.
const minTokenSecret = 16

// secrets holds what signs the tokens that visitors carry.
func (c *checker) secrets(secret string, previous []string) {
	short := func(field, s string) {
		if n := len(s); n > 0 && n < minTokenSecret {
			c.add(field, fmt.Sprintf("has only %d bytes", n), "write at least 16 random bytes, or remove it to let the edge make one")
		}
	}
	short("secret", secret)
	for i, s := range previous {
		short("previousSecrets["+strconv.Itoa(i)+"]", s)
	}
	if secret == "" && len(previous) > 0 {
		c.add("previousSecrets", "have no secret that took their place", "give secret too; what the edge made itself is rotated in its folder")
	}
	if secret != "" && slices.Contains(previous, secret) {
		c.add("previousSecrets", "hold the secret in use", "remove it there")
	}
}

func (c *checker) visitorPolicy(s *VisitorPolicySpec) {
	c.secrets(s.Secret, s.PreviousSecrets)
	if len(s.Ordered) > 0 && len(s.Basket)+len(s.Checkout) == 0 {
		c.add("basket", "is empty, so that nobody is protected until an order", "name the requests that put something into a basket")
	}
	if s.Header != "" && strings.EqualFold(s.Header, s.OriginHeader) {
		c.add("originHeader", "is the field of the visitors' tokens too", "name another one")
	}
	c.each("callbacks", len(s.Callbacks), func(i int) {
		b := &s.Callbacks[i]
		if len(b.Addresses)+len(b.Certificates) == 0 && b.Signature == nil {
			c.add("", "would let everybody count as a callback", "give addresses, certificates or signature")
		}
		for j, p := range b.Certificates {
			if raw, err := hex.DecodeString(strings.ReplaceAll(p, ":", "")); err != nil || len(raw) != 32 {
				c.add("certificates["+strconv.Itoa(j)+"]", quote(p)+" is no SHA-256 fingerprint", "write 64 hexadecimal digits, as openssl x509 -fingerprint -sha256 prints them")
			}
		}
		if g := b.Signature; g != nil {
			c.within("signature", func() {
				if g.Header == "" && (g.Scheme == "hex" || g.Scheme == "base64") {
					c.add("header", "is required with scheme: "+g.Scheme, "name the field that holds the signature")
				}
				for j, k := range g.Secrets {
					if len(k) > 0 && len(k) < 8 {
						c.add("secrets["+strconv.Itoa(j)+"]", "is too short to be a secret", "give the one that the sender shows, such as ${PAYMENT_SECRET} from the environment")
					}
				}
			})
		}
		if slices.ContainsFunc(s.Callbacks[:i], func(o Callback) bool { return o.Name == b.Name }) {
			c.add("name", quote(b.Name)+" is taken", "give each callback a name of its own")
		}
	})
}

func (c *checker) waitingRoom(s *WaitingRoomSpec) {
	c.secrets(s.Secret, s.PreviousSecrets)
	if s.When == "overflow" && (s.From != nil || s.Until != nil) {
		c.add("when", "is overflow, which knows no hours", "write when: always, or remove from and until")
	}
	if s.From != nil && s.Until != nil && !s.From.Before(s.Until.Time) {
		c.add("until", "is not after from", "write a later instant")
	}
	c.within("page", func() {
		c.template("html", s.Page.HTML, inRoom)
		c.template("json", s.Page.JSON, inRoom)
		c.template("text", s.Page.Text, inRoom)
	})
}

func (c *checker) botPolicy(s *BotPolicySpec) {
	if s.DenyFrom > 0 && s.ChallengeFrom >= s.DenyFrom {
		c.add("challengeFrom", "is not below denyFrom, so that nobody is challenged", "write less than denyFrom, or 0")
	}
	for i, p := range s.Honeypots {
		if strings.Trim(p, "/") == "" {
			c.add("honeypots["+strconv.Itoa(i)+"]", "is the whole site", "name a path that no page links to")
		}
	}
	c.each("verified", len(s.Verified), func(i int) {
		b := &s.Verified[i]
		if len(b.Addresses)+len(b.AddressFiles)+len(b.Domains)+len(b.Keys) == 0 {
			c.add("", "has no way to prove who it is", "give addresses, addressFiles, domains or keys")
		}
		if len(b.Domains) > 0 && b.UserAgent == "" {
			c.add("userAgent", "is required with domains", "write a word of its User-Agent; without one DNS would be asked for every visitor")
		}
		for j, k := range b.Keys {
			if raw, err := base64.RawURLEncoding.DecodeString(k); err != nil || len(raw) != 32 {
				c.add("keys["+strconv.Itoa(j)+"]", "is no Ed25519 public key", "write its x of a JSON Web Key: 43 characters of base64url")
			}
		}
	})
}
