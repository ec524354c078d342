package store

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits are the bounds of a store. A zero field takes its default; docs/limits.md lists them.
type Limits struct {
	DocumentBytes int64         // of one body; 4 MiB
	Documents     int64         // of one organization; 1,000,000
	BatchChanges  int           // documents, messages and entries that one change writes; 10,000
	BatchBytes    int64         // of their bodies; 64 MiB
	PayloadBytes  int64         // of a message or an entry; 64 KiB
	PageItems     int           // of a page, whatever is asked for; 1,000
	PageBytes     int64         // of the bodies of a page, but at least one item; 16 MiB
	Messages      int64         // that are kept for consumers who do not come; 1,000,000
	Consumers     int64         // of the outbox; 100
	Ephemera      int64         // of one space; 100,000
	Writers       int           // that wait for their turn in one process; 1,000
	Wait          time.Duration // for a turn, and for another process's lock; 10 s
	Transaction   time.Duration // of one change, from its turn to its commit; 30 s
	FileBytes     int64         // of an SQLite file; 0: the disk's
}

// lastRune comes after all that names may hold. It is no character (Unicode 23.7).
const lastRune = "\U0010FFFF"

// Bounds of names, bytes.
const (
	maxPart   = 63  // organization, project, kind, topic, log, consumer
	maxName   = 253 // of a document
	maxAuthor = 320
	maxReason = 1024
)

func (l Limits) withDefaults() Limits {
	or(&l.DocumentBytes, 4<<20)
	or(&l.Documents, 1_000_000)
	or(&l.BatchChanges, 10_000)
	or(&l.BatchBytes, 64<<20)
	or(&l.PayloadBytes, 64<<10)
	or(&l.PageItems, 1000)
	or(&l.PageBytes, 16<<20)
	or(&l.Messages, 1_000_000)
	or(&l.Consumers, 100)
	or(&l.Ephemera, 100_000)
	or(&l.Writers, 1000)
	or(&l.Wait, 10*time.Second)
	or(&l.Transaction, 30*time.Second)
	return l
}

func or[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (l Limits) checkChange(c Change) error {
	if c.Author == "" {
		return fmt.Errorf("%w: a change names its author", ErrInvalid)
	}
	if err := checkText("author", c.Author, maxAuthor); err != nil {
		return err
	}
	return checkText("reason", c.Reason, maxReason)
}

func (l Limits) checkKey(k Key) error {
	for _, p := range []struct {
		what, text string
		most       int
		optional   bool
	}{
		{"organization", k.Organization, maxPart, false},
		{"project", k.Project, maxPart, true},
		{"kind", k.Kind, maxPart, false},
		{"name", k.Name, maxName, false},
	} {
		if p.text == "" && !p.optional {
			return fmt.Errorf("%w: the key %s has no %s", ErrInvalid, k, p.what)
		}
		if err := checkText(p.what, p.text, p.most); err != nil {
			return err
		}
	}
	return nil
}

// checkText keeps out what one of the databases cannot hold (NUL, bytes that are no UTF-8) and what a log cannot show.
func checkText(what, s string, most int) error {
	if len(s) > most {
		return &LimitError{"bytes of " + what, int64(len(s)), int64(most)}
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s is not in UTF-8", ErrInvalid, what)
	}
	for _, r := range s {
		if unicode.IsControl(r) || string(r) == lastRune {
			return fmt.Errorf("%w: %s %q holds a control character", ErrInvalid, what, s)
		}
	}
	return nil
}

func checkJSON(what string, body []byte, most int64) error {
	if int64(len(body)) > most {
		return &LimitError{"bytes of " + what, int64(len(body)), most}
	}
	if !json.Valid(body) {
		return fmt.Errorf("%w: %s is not JSON", ErrInvalid, what)
	}
	return nil
}
