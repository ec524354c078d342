package auth

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// TokenPrefix is how programs that look for leaked secrets recognise a token.
const TokenPrefix = "relais_"

const tokenIDBytes = 16

// ErrToken says that a text is no token; it says no more to whom it may be.
var ErrToken = errors.New("the token is not valid")

// Token is a text of the form relais_ORGANIZATION_ID_SECRET, and a checksum behind it, so that a typing error costs no
// look-up. Only the hash of the secret is kept.
type Token struct {
	Organization string
	ID           string
	Secret       string
}

// NewToken makes a token of an organization, whose name holds no underscore.
func NewToken(organization string) Token {
	return Token{Organization: organization, ID: NewSecret()[:tokenIDBytes], Secret: NewSecret()}
}

// String is the whole token; show it once.
func (t Token) String() string {
	s := TokenPrefix + t.Organization + "_" + t.ID + "_" + t.Secret
	return s + fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s)))
}

// ParseToken reads a token's parts. That it is well formed says nothing of its being valid.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(s, "_")
	if len(parts) != 4 || len(s) > 256 || parts[0]+"_" != TokenPrefix || len(parts[2]) != tokenIDBytes || len(parts[3]) != len(NewSecret())+8 {
		return Token{}, ErrToken
	}
	body, sum := s[:len(s)-8], s[len(s)-8:]
	if fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) != sum {
		return Token{}, ErrToken
	}
	return Token{parts[1], parts[2], parts[3][:len(parts[3])-8]}, nil
}
