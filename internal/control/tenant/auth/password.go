// Package auth holds what proves who somebody is: passwords, one-time codes, recovery codes, tokens, and the throttle that
// makes guessing slow without locking anybody out. It keeps nothing on a disk.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Cost is what a password's hash costs (RFC 9106, argon2id).
type Cost struct {
	Passes    uint32
	MemoryKiB uint32
	Lanes     uint8
}

const (
	saltBytes = 16
	hashBytes = 32
	// Bounds of a password. A short one is guessed, a long one costs us time.
	minPassword, maxPassword = 12, 1024
	// maxMemoryKiB keeps a stored hash from asking for all of the machine.
	maxMemoryKiB = 1 << 20
	maxPasses    = 64
)

// ErrBusy says that too many passwords are being checked.
var ErrBusy = errors.New("too many passwords are being checked; try again")

// ErrPassword says that a password cannot be taken.
var ErrPassword = errors.New("the password cannot be taken")

// Hasher hashes passwords, a few at a time: each takes the memory that its cost says.
type Hasher struct {
	cost  Cost
	slots chan struct{}
	line  chan struct{}
	decoy string
}

// NewHasher makes a hasher of which at once work at a time, and 32 for each of them wait. No cost is the second
// recommendation of RFC 9106 section 4.
func NewHasher(c Cost, at int) *Hasher {
	if c == (Cost{}) {
		c = Cost{Passes: 3, MemoryKiB: 64 << 10, Lanes: 4}
	}
	h := &Hasher{cost: c, slots: make(chan struct{}, max(at, 1)), line: make(chan struct{}, 33*max(at, 1))}
	h.decoy = encode(c, make([]byte, saltBytes), make([]byte, hashBytes))
	return h
}

// CheckPassword says whether a password may be chosen by a user of that login.
func CheckPassword(password, login string) error {
	switch {
	case !utf8.ValidString(password):
		return fmt.Errorf("%w: it is not in UTF-8", ErrPassword)
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("%w: it has fewer than %d characters", ErrPassword, minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("%w: it has more than %d bytes", ErrPassword, maxPassword)
	case strings.Contains(strings.ToLower(password), strings.ToLower(login)):
		return fmt.Errorf("%w: it holds the login", ErrPassword)
	case strings.Count(password, password[:1]) == len(password):
		return fmt.Errorf("%w: it is one character again and again", ErrPassword)
	}
	return nil
}

// Hash gives the text that is kept, in the PHC form.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	return encode(h.cost, salt, argon2.IDKey([]byte(password), salt, h.cost.Passes, h.cost.MemoryKiB, h.cost.Lanes, hashBytes)), nil
}

// Verify compares a password with what was kept. An empty text is of a user that does not exist: it takes as long, and
// never matches. Outdated says that the hash should be made anew at today's cost.
func (h *Hasher) Verify(ctx context.Context, kept, password string) (ok, outdated bool, err error) {
	exists := kept != ""
	if !exists {
		kept = h.decoy
	}
	cost, salt, want, err := decode(kept)
	if err != nil {
		return false, false, err
	}
	if len(password) > maxPassword {
		password = password[:maxPassword+1] // no password is so long
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, false, err
	}
	defer leave()
	got := argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Lanes, uint32(len(want)))
	ok = subtle.ConstantTimeCompare(got, want) == 1 && exists
	return ok, cost != h.cost, nil
}

func (h *Hasher) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.line <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; <-h.line }, nil
	case <-ctx.Done():
		<-h.line
		return nil, context.Cause(ctx)
	}
}

func encode(c Cost, salt, hash []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.MemoryKiB, c.Passes, c.Lanes, b.EncodeToString(salt), b.EncodeToString(hash))
}

func decode(s string) (c Cost, salt, hash []byte, err error) {
	parts := strings.Split(s, "$")
	bad := errors.New("the kept hash of a password is not well formed")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, bad
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.MemoryKiB, &c.Passes, &c.Lanes); err != nil {
		return c, nil, nil, bad
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	hash, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(hash) < 16 || len(hash) > 64 || c.Lanes == 0 || c.Passes == 0 || c.Passes > maxPasses || c.MemoryKiB > maxMemoryKiB {
		return c, nil, nil, bad
	}
	return c, salt, hash, nil
}
