package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// TokenPrefix begins the text of a join token, so that it is known where it was pasted by mistake.
const TokenPrefix = "relais-join-"

const (
	maxToken = 2048 // bytes of its text
	maxURLs  = 4
	secretN  = 32
)

// ErrToken says that a join token is not good. It does not say why, as the one who asks may be anybody.
var ErrToken = errors.New("the join token is not valid: it is unknown, has expired, or was used by another machine; make a new one")

// Token lets one machine join once.
type Token struct {
	URLs   []string          `json:"u"` // https://host:port of control planes
	Pin    [sha256.Size]byte `json:"-"` // of the root's public key: Pin
	ID     string            `json:"i"`
	Secret []byte            `json:"s"`
}

// tokenText is a Token as JSON.
type tokenText struct {
	Token
	Pin []byte `json:"p"`
}

// NewToken makes a token, which is good once its hash is kept.
func NewToken(urls []string, pin [sha256.Size]byte) (Token, error) {
	t := Token{URLs: urls, Pin: pin, ID: strings.ToLower(rand.Text()[:16]), Secret: make([]byte, secretN)}
	if _, err := rand.Read(t.Secret); err != nil {
		return Token{}, err
	}
	return t, t.check()
}

func (t Token) check() error {
	if len(t.URLs) == 0 || len(t.URLs) > maxURLs {
		return fmt.Errorf("a join token has 1 to %d addresses, and not %d", maxURLs, len(t.URLs))
	}
	for _, s := range t.URLs {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("a join token names %.80q; write https://host:port", s)
		}
	}
	if len(t.Secret) != secretN || !ValidName(t.ID) || len(t.ID) != 16 {
		return errors.New("a join token is damaged")
	}
	return nil
}

// String is the text to give to the machine. It is a secret.
func (t Token) String() string {
	b, err := json.Marshal(tokenText{t, t.Pin[:]})
	if err != nil {
		return ""
	}
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// Hash is what a control plane keeps of the secret: it is random, so that one round is enough.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256(t.Secret) }

// ParseToken reads the text of a token.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, TokenPrefix)
	if !ok || len(text) > maxToken {
		return Token{}, fmt.Errorf("this is no join token: it begins with %q", TokenPrefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return Token{}, errors.New("the join token is damaged; copy all of it")
	}
	var t tokenText
	if err := strict(raw, &t); err != nil || len(t.Pin) != sha256.Size {
		return Token{}, errors.New("the join token is damaged; copy all of it")
	}
	t.Token.Pin = [sha256.Size]byte(t.Pin)
	return t.Token, t.check()
}

// strict reads JSON that has no other fields, and nothing behind it.
func strict(b []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more behind it")
	}
	return nil
}
