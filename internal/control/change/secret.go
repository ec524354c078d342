package change

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// A secret of a document is kept as sealed:ID:RECIPIENT:CIPHER, and shown as (secret ID). The id is random and of this
// value: who sends back what was shown keeps the value, wherever in the document he puts it, and a new value has a new id,
// so that a difference shows that it changed.
const (
	sealedPrefix = "sealed:"
	shownPrefix  = "(secret "
	shownSuffix  = ")"
	idBytes      = 8
)

// sealed is a secret at rest.
type sealed struct {
	id   string
	body secret.Body
}

func (s sealed) String() string {
	return sealedPrefix + s.id + ":" + s.body.Recipient + ":" + base64.RawStdEncoding.EncodeToString(s.body.Cipher)
}

func parseSealed(text string) (s sealed, ok bool) {
	rest, ok := strings.CutPrefix(text, sealedPrefix)
	parts := strings.Split(rest, ":")
	if !ok || len(parts) != 3 {
		return s, false
	}
	cipher, err := base64.RawStdEncoding.DecodeString(parts[2])
	return sealed{parts[0], secret.Body{Recipient: parts[1], Cipher: cipher}}, err == nil
}

// shown is what stands for a secret; of what is not sealed nothing is told.
func shown(text string) string {
	s, ok := parseSealed(text)
	if !ok {
		return shownPrefix + strings.Repeat("0", 2*idBytes) + shownSuffix
	}
	return shownPrefix + s.id + shownSuffix
}

// shownID is the id in what stands for a secret.
func shownID(text string) (id string, ok bool) {
	id, ok = strings.CutPrefix(text, shownPrefix)
	if ok {
		id, ok = strings.CutSuffix(id, shownSuffix)
	}
	b, err := hex.DecodeString(id)
	return id, ok && err == nil && len(b) == idBytes
}

// secretKey is what a document's secrets are bound to: not its project, from which it may move.
func secretKey(org string, kind v1.Kind, name string) store.Key {
	return store.Key{Organization: org, Kind: string(kind), Name: name}
}

// keyring is what is known of one document's secrets: those that are kept.
type keyring struct {
	vault *secret.Vault
	key   store.Key
	known []known
}

type known struct {
	sealed sealed
	plain  string
}

// ring opens the secrets of a kept document.
func (s *Service) ring(org string, key id, kept ...[]byte) (*keyring, error) {
	k := &keyring{vault: s.Vault, key: secretKey(org, key.kind, key.name)}
	for _, body := range kept {
		d, err := typed(string(key.kind), body)
		if err != nil {
			return nil, err
		}
		if err := k.open(d); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// open puts a kept document's secrets in clear.
func (k *keyring) open(d v1.Document) (err error) {
	v1.Secrets(d, func(path, text string) string {
		s, ok := parseSealed(text)
		if !ok {
			if err == nil {
				err = fmt.Errorf("change: %s of %s is not closed as it should be", path, k.key)
			}
			return ""
		}
		b, e := k.vault.Open(k.key, s.body)
		if e != nil {
			if err == nil {
				err = e
			}
			return ""
		}
		k.known = append(k.known, known{s, string(b)})
		return string(b)
	})
	return err
}

// fill puts what is kept in the place of what stands for it.
func (k *keyring) fill(d v1.Document) (problems []v1.Problem) {
	v1.Secrets(d, func(path, text string) string {
		id, ok := shownID(text)
		if !ok {
			return text
		}
		for _, s := range k.known {
			if s.sealed.id == id {
				return s.plain
			}
		}
		problems = append(problems, v1.Problem{Field: path, What: "stands for a secret that this document does not have", Fix: "give the secret itself; a document that is new here, or was exported elsewhere, has none yet"})
		return text
	})
	return problems
}

// close closes the secrets of a document that is to be kept. One that is known stays as it is.
func (k *keyring) close(d v1.Document) (err error) {
	v1.Secrets(d, func(_, text string) string {
		for _, s := range k.known {
			if s.plain == text && !k.vault.Outdated(s.sealed.body) {
				return s.sealed.String()
			}
		}
		b, e := k.vault.Close(k.key, []byte(text))
		if e != nil {
			err = e
			return ""
		}
		raw := make([]byte, idBytes)
		_, _ = rand.Read(raw) // never fails
		made := sealed{hex.EncodeToString(raw), b}
		k.known = append(k.known, known{made, text})
		return made.String()
	})
	return err
}

// hide puts what stands for a secret in its place.
func hide(d v1.Document) {
	v1.Secrets(d, func(_, text string) string { return shown(text) })
}
