package listen

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/keypair"
)

const (
	ticketLife = 12 * time.Hour
	ticketKeys = 3 // the newest seals, all open
	// ticketAhead is how long before its time a shared key is made, so that the other edges have it.
	ticketAhead = time.Hour
	// ticketLook is how often a shared folder is read.
	ticketLook = 10 * time.Second
	// maxTicketFiles bounds what is looked at in a shared folder.
	maxTicketFiles = 1000
	ticketSuffix   = ".key"
)

// tickets are the keys that seal session tickets (RFC 8446 section 4.6.1). They outlive the
// tls.Config, so that a reload does not cost every visitor a full handshake.
type tickets struct {
	mu     sync.Mutex
	keys   [][32]byte
	next   time.Time
	dir    string // of keys that edges share
	failed string // what was logged last
}

// turn takes up new keys when it is time, and says so.
func (t *tickets) turn(now time.Time, dir string, log *slog.Logger) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if dir != t.dir {
		t.dir, t.next, t.keys = dir, time.Time{}, nil
	}
	if now.Before(t.next) {
		return false
	}
	if dir != "" {
		t.next = now.Add(ticketLook)
		keys, err := sharedKeys(dir, now)
		if err == nil {
			t.failed = ""
			changed := !slices.Equal(keys, t.keys)
			t.keys = keys
			return changed
		}
		if text := err.Error(); text != t.failed {
			t.failed = text
			log.Error("shared session-ticket keys cannot be read; sessions resume at this edge only", "ticketKeys", dir, "err", err)
		}
		if len(t.keys) > 0 {
			return false
		}
	} else {
		t.next = now.Add(ticketLife)
	}
	var k [32]byte
	_, _ = rand.Read(k[:]) // crypto/rand ends the process rather than fail
	t.keys = append([][32]byte{k}, t.keys[:min(len(t.keys), ticketKeys-1)]...)
	return true
}

// apply hands the keys to TLS. They are bound to the listener and to whom it takes client
// certificates from, so that a session does not pass a check that it was not made under.
func (t *tickets) apply(c *tls.Config, listener string, auth *v1.ClientAuth) {
	t.mu.Lock()
	defer t.mu.Unlock()
	bound := make([][32]byte, len(t.keys))
	for i, k := range t.keys {
		h := sha256.New()
		h.Write(k[:])
		h.Write([]byte(listener))
		if auth != nil {
			h.Write([]byte("\x00" + auth.Mode + "\x00" + auth.CA))
		}
		h.Sum(bound[i][:0])
	}
	c.SetSessionTicketKeys(bound)
}

// sharedKeys reads a folder of keys: files NUMBER.key with 64 hexadecimal digits, where NUMBER
// counts half days since 1970. The one of now seals; older ones and the next one open. What is
// missing is made, if the folder may be written to; who is first wins.
func sharedKeys(dir string, now time.Time) ([][32]byte, error) {
	slot := now.Unix() / int64(ticketLife/time.Second)
	_ = os.MkdirAll(dir, 0o700)
	werr := makeTicketKey(dir, slot)
	if ahead := now.Add(ticketAhead).Unix() / int64(ticketLife/time.Second); ahead != slot {
		_ = makeTicketKey(dir, ahead)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, keypair.ExplainFile(err)
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxTicketFiles)
	var slots []int64
	for _, name := range names {
		if n, err := strconv.ParseInt(strings.TrimSuffix(name, ticketSuffix), 10, 64); err == nil && strings.HasSuffix(name, ticketSuffix) {
			slots = append(slots, n)
		}
	}
	// The newest whose time has come first, then older ones, then what is ahead.
	slices.SortFunc(slots, func(a, b int64) int {
		if (a > slot) != (b > slot) {
			if a > slot {
				return 1
			}
			return -1
		}
		return int(b - a)
	})
	var keys [][32]byte
	old := 0
	for _, n := range slots {
		path := filepath.Join(dir, strconv.FormatInt(n, 10)+ticketSuffix)
		if n <= slot {
			if old++; old > ticketKeys {
				if n < slot-2*ticketKeys {
					_ = os.Remove(path) // may fail where the folder is for reading only
				}
				continue
			}
		}
		k, err := readTicketKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("there is no key and none can be made: %w; make the folder writable for one of the edges", werr)
	}
	return keys, nil
}

func readTicketKey(path string) (k [32]byte, err error) {
	b, err := keypair.ReadPEM(path)
	if err != nil {
		return k, err
	}
	b = bytes.TrimSpace(b)
	if len(b) != 2*len(k) {
		return k, fmt.Errorf("%s has %d characters, not 64 hexadecimal digits; remove it", path, len(b))
	}
	_, err = hex.Decode(k[:], b)
	return k, err
}

// makeTicketKey makes a key whole or not at all; another edge may have been first.
func makeTicketKey(dir string, slot int64) error {
	path := filepath.Join(dir, strconv.FormatInt(slot, 10)+ticketSuffix)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	var k [32]byte
	_, _ = rand.Read(k[:])
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(k[:]) + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
