package identity

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in a machine's folder.
const (
	stateFile = "identity.json" // a State, whole or not at all
	joinFile  = "join.json"     // the key with which it joins, until it has
)

// State is all that a machine has of its identity. It is one file, so that key, certificate and roots always fit.
type State struct {
	Token  string `json:"token"`  // id of the token with which it joined
	Key    string `json:"key"`    // PEM
	Chain  string `json:"chain"`  // PEM: its certificate and the issuer's
	Bundle string `json:"bundle"` // PEM: the roots
	Welcome
}

// joining is what is kept while a machine joins.
type joining struct {
	Token string `json:"token"`
	Key   string `json:"key"`
}

// Load reads the state of a folder. The error is fs.ErrNotExist where the machine has not joined.
func Load(dir string) (State, error) {
	var s State
	err := load(filepath.Join(dir, stateFile), &s)
	return s, err
}

// Save writes the state, whole or not at all, for its owner alone.
func Save(dir string, s State) error { return save(dir, stateFile, s) }

func load(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) > 2*maxAnswer {
		return fmt.Errorf("%s has more than %d bytes", path, 2*maxAnswer)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s is damaged; join again with a new token, after it is removed: %w", path, err)
	}
	return nil
}

func save(dir, name string, what any) (err error) {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+name+"-*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error is told already
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func remove(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Open makes credentials and trust of a state. Now is their clock; nil: time.Now.
func (s State) Open(now func() time.Time) (*Credentials, error) {
	certs, err := ParseCertificates([]byte(s.Chain))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id, err := Of(certs[0])
	if err != nil {
		return nil, err
	}
	trust, err := NewTrust(id.Domain, []byte(s.Bundle), now)
	if err != nil {
		return nil, err
	}
	if len(s.Revoked) > 0 {
		if err := trust.SetRevoked(s.Revoked); err != nil {
			return nil, err
		}
	}
	key, err := ParseKey([]byte(s.Key))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	c := NewCredentials(trust)
	return c, c.Set([]byte(s.Chain), key)
}

// accept makes a state of an answer, which is for this key, of a root that it names itself, and for whom expect takes.
func accept(a answer, key *ecdsa.PrivateKey, now time.Time, expect Expect) (State, error) {
	text, err := MarshalKey(key)
	if err != nil {
		return State{}, err
	}
	s := State{Key: string(text), Chain: a.Chain, Bundle: a.Bundle, Welcome: a.Welcome}
	c, err := s.Open(func() time.Time { return now })
	if err != nil {
		return State{}, fmt.Errorf("the answer of the control plane: %w", err)
	}
	certs, err := ParseCertificates([]byte(s.Chain))
	if err != nil {
		return State{}, err
	}
	id, err := c.Trust().Verify(certs)
	if err == nil {
		err = expect(id)
	}
	if err != nil {
		return State{}, fmt.Errorf("the answer of the control plane: %w", err)
	}
	return s, nil
}
