package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what authenticator programs speak; HMAC does not rest on collisions
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	totpStep   = 30 * time.Second
	totpDigits = 6
	totpSkew   = 1 // steps to either side (RFC 6238 section 5.2)
	totpBytes  = 20

	// RecoveryCodes is how many a user gets.
	RecoveryCodes = 10
	recoveryBytes = 10 // 80 bits: nobody guesses them, so a plain hash keeps them
)

// NewTOTP makes a secret for one-time codes by time (RFC 6238).
func NewTOTP() []byte {
	b := make([]byte, totpBytes)
	_, _ = rand.Read(b) // never fails
	return b
}

// TOTPURI is what an authenticator program reads from a picture.
func TOTPURI(issuer, account string, secret []byte) string {
	q := url.Values{"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)}, "issuer": {issuer}}
	return (&url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + issuer + ":" + account, RawQuery: q.Encode()}).String()
}

// CheckTOTP holds a code against a secret. Last is the step of the last code that was taken: that one and earlier ones are
// not taken again. Keep the step that it gives.
func CheckTOTP(secret []byte, code string, now time.Time, last int64) (step int64, ok bool) {
	current := now.Unix() / int64(totpStep/time.Second)
	for s := current - totpSkew; s <= current+totpSkew; s++ {
		if subtle.ConstantTimeCompare([]byte(totp(secret, s, totpDigits)), []byte(code)) == 1 && s > last {
			step, ok = s, true
		}
	}
	return step, ok
}

// totp is the code of a step (RFC 4226 section 5.3).
func totp(secret []byte, step int64, digits int) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash takes everything
	sum := mac.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0xf:]) & 0x7fffffff
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", digits, n%mod)
}

// NewRecoveryCodes makes codes to show once, and the hashes to keep.
func NewRecoveryCodes() (codes, hashes []string) {
	for range RecoveryCodes {
		b := make([]byte, recoveryBytes)
		_, _ = rand.Read(b) // never fails
		s := strings.ToLower(base32.StdEncoding.EncodeToString(b))
		code := s[:4] + "-" + s[4:8] + "-" + s[8:12] + "-" + s[12:]
		codes, hashes = append(codes, code), append(hashes, HashSecret(plain(code)))
	}
	return codes, hashes
}

// CheckRecoveryCode gives the place of the hash that a code, as a person types it, belongs to; -1 where none does.
func CheckRecoveryCode(hashes []string, code string) int {
	found, sum := -1, []byte(HashSecret(plain(code)))
	for i, h := range hashes {
		if subtle.ConstantTimeCompare([]byte(h), sum) == 1 {
			found = i
		}
	}
	return found
}

// plain undoes what people do to codes. Base32 has no 0, 1 and 8, which stand for what they look like.
func plain(code string) string {
	return strings.NewReplacer("-", "", " ", "", "0", "o", "1", "l", "8", "b").Replace(strings.ToLower(strings.TrimSpace(code)))
}

// HashSecret is what is kept of a secret that is random and long.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// SameSecret compares a secret with the hash that was kept.
func SameSecret(hash, secret string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(HashSecret(secret))) == 1
}

// NewSecret makes a random text of 256 bits, in lower-case letters and digits.
func NewSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}
