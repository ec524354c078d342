// Package audit keeps who did what, in a chain of hashes for each organization: an entry that is changed, removed or put in
// between is found. Entries are written in the transaction of what they tell of.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
)

// logName is the store's log that holds an organization's entries.
const logName = "audit"

// actionTrim is the action of the entry that says which older entries were removed.
const actionTrim = "audit.trim"

// actionErase is the action of the entry that says up to which one those before it were erased.
const actionErase = "audit.erase"

// Entry is one line. Its hash is over all other fields, the organization and the hash of the entry before.
type Entry struct {
	Organization string          `json:"organization"`
	Seq          int64           `json:"seq"` // 1, 2, 3 ... within the organization
	Time         time.Time       `json:"time"`
	Actor        string          `json:"actor"`
	Action       string          `json:"action"`
	Target       string          `json:"target,omitempty"`
	Reason       string          `json:"reason,omitempty"`
	Details      json.RawMessage `json:"details,omitempty"` // JSON; no secrets
	Former       string          `json:"former"`            // hash of the entry before; empty before the first
	Hash         string          `json:"hash,omitempty"`    // SHA-256, hexadecimal
	Erased       bool            `json:"erased,omitempty"`  // what it said is gone; its hash is still that of then
}

// Anchor is an entry that somebody noted elsewhere: a log that lost it, or its end, is not the log of then.
type Anchor struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// BreakError is the first place at which a log is not as it was written.
type BreakError struct {
	Organization string
	Seq          int64
	Why          string
}

// Error says where and why.
func (e *BreakError) Error() string {
	return fmt.Sprintf("the audit log of %s is broken at entry %d: %s", e.Organization, e.Seq, e.Why)
}

// Viewer reads a store.
type Viewer interface {
	View(ctx context.Context, fn func(*store.Reader) error) error
}

// hash is over the entry's JSON, whose fields are in the order of the type.
func (e Entry) hash() (string, error) {
	e.Hash = ""
	b, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("audit: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Append writes an entry; number, time, former and own hash are filled in.
func Append(ctx context.Context, tx *store.Tx, e Entry) (Entry, error) {
	last, err := tx.LastEntry(ctx, e.Organization, logName)
	if err != nil {
		return Entry{}, err
	}
	e.Seq, e.Time, e.Former = last.Seq+1, tx.Now(), ""
	if last.Seq > 0 {
		var before Entry
		if err := json.Unmarshal(last.Body, &before); err != nil {
			return Entry{}, &BreakError{e.Organization, last.Seq, "it is not JSON"}
		}
		e.Former = before.Hash
	}
	if len(e.Details) > 0 { // as it will be read again
		var b bytes.Buffer
		if err := json.Compact(&b, e.Details); err != nil {
			return Entry{}, fmt.Errorf("audit: details: %w", err)
		}
		e.Details = b.Bytes()
	}
	if e.Hash, err = e.hash(); err != nil {
		return Entry{}, err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return Entry{}, fmt.Errorf("audit: %w", err)
	}
	_, err = tx.Append(ctx, e.Organization, logName, body)
	return e, err
}

// Entries reads a log after an entry, the oldest first.
func Entries(ctx context.Context, r *store.Reader, organization string, after int64, limit int) ([]Entry, error) {
	raw, err := r.Entries(ctx, organization, logName, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, len(raw))
	for i, e := range raw {
		if err := json.Unmarshal(e.Body, &list[i]); err != nil {
			return nil, &BreakError{organization, e.Seq, "it is not JSON"}
		}
	}
	return list, nil
}

// Verify reads the whole log and gives its newest entry as an anchor, or the first break. Anchors that were noted before
// are held against it; without any, a log that lost its newest entries looks whole.
func Verify(ctx context.Context, v Viewer, organization string, anchors ...Anchor) (Anchor, error) {
	c := NewChain(organization, anchors...)
	for {
		var list []store.Entry
		err := v.View(ctx, func(r *store.Reader) (err error) {
			list, err = r.Entries(ctx, organization, logName, c.last.Seq, 0)
			return err
		})
		if err != nil {
			return Anchor{}, err
		}
		if len(list) == 0 {
			return c.End()
		}
		for _, raw := range list {
			var e Entry
			if err := json.Unmarshal(raw.Body, &e); err != nil {
				return c.last, &BreakError{organization, raw.Seq, "it is not JSON"}
			}
			if err := c.next(e, raw.Seq); err != nil {
				return c.last, err
			}
		}
	}
}

// Chain is how far a log was verified. It needs no store, so who was given a log verifies it without asking for more.
type Chain struct {
	organization string
	begins       Anchor // what the first entry that is kept says came before it
	last         Anchor
	anchors      map[int64]string
	trims        map[Anchor]bool // what entries say was removed
	erased       int64           // newest entry that was erased
	allowed      int64           // up to which one an entry says that they were
}

// NewChain begins with nothing verified; Next takes the entries, the oldest first.
func NewChain(organization string, anchors ...Anchor) *Chain {
	c := &Chain{organization: organization, anchors: map[int64]string{}, trims: map[Anchor]bool{}}
	for _, a := range anchors {
		c.anchors[a.Seq] = a.Hash
	}
	return c
}

// Next says whether an entry follows the one before as it was written; else *BreakError.
func (c *Chain) Next(e Entry) error { return c.next(e, e.Seq) }

// End gives the newest entry as an anchor, or the break that shows only when all were seen.
func (c *Chain) End() (Anchor, error) { return c.last, c.end() }

// next takes an entry that was found under a number.
func (c *Chain) next(e Entry, seq int64) error {
	broken := func(why string) error { return &BreakError{c.organization, seq, why} }
	want, err := e.hash()
	first := c.last == Anchor{}
	switch {
	case e.Erased && (e.Actor+e.Action+e.Target+e.Reason != "" || len(e.Details) > 0):
		return broken("it was changed: it was erased, and says something")
	case err != nil || want != e.Hash && !e.Erased:
		return broken("it was changed: its hash is another")
	case e.Organization != c.organization || e.Seq != seq:
		return broken(fmt.Sprintf("it was written as entry %d of %s", e.Seq, e.Organization))
	case !first && e.Seq != c.last.Seq+1:
		return &BreakError{c.organization, c.last.Seq + 1, "it is missing"}
	case !first && e.Former != c.last.Hash, first && e.Seq == 1 && e.Former != "":
		return broken("it does not follow the entry before: that one was replaced")
	}
	if first && e.Seq > 1 {
		c.begins = Anchor{e.Seq - 1, e.Former}
	}
	if h, ok := c.anchors[e.Seq]; ok && h != e.Hash {
		return broken("it is not the entry that was noted")
	}
	delete(c.anchors, e.Seq)
	if e.Erased {
		c.erased = e.Seq
	}
	if n := int64(0); e.Action == actionErase && json.Unmarshal(e.Details, &n) == nil {
		c.allowed = max(c.allowed, min(n, e.Seq-1))
	}
	var trimmed Anchor
	if e.Action == actionTrim && json.Unmarshal(e.Details, &trimmed) == nil {
		c.trims[trimmed] = true
	}
	c.last = Anchor{e.Seq, e.Hash}
	return nil
}

func (c *Chain) end() error {
	if c.begins != (Anchor{}) && !c.trims[c.begins] {
		return &BreakError{c.organization, c.begins.Seq, "it is missing, and no entry says that it was removed"}
	}
	if c.erased > c.allowed {
		return &BreakError{c.organization, c.erased, "it was erased, and no entry says so"}
	}
	for seq := range c.anchors {
		if seq > c.last.Seq {
			return &BreakError{c.organization, c.last.Seq + 1, "it is missing: a later one was noted"}
		}
	}
	return nil
}

// Trim removes entries before seq, and writes an entry that says so, with the hash at which the log was cut.
func Trim(ctx context.Context, tx *store.Tx, organization, actor string, before int64) error {
	list, err := Entries(ctx, &tx.Reader, organization, before-2, 1)
	if err != nil {
		return err
	}
	if before < 2 || len(list) == 0 || list[0].Seq != before-1 {
		return fmt.Errorf("audit: entry %d of %s: %w", before-1, organization, store.ErrNotFound)
	}
	details, err := json.Marshal(Anchor{list[0].Seq, list[0].Hash})
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if _, err := Append(ctx, tx, Entry{Organization: organization, Actor: actor, Action: actionTrim, Details: details}); err != nil {
		return err
	}
	return tx.TrimLog(ctx, organization, logName, before)
}

// Erase writes an entry that says that all before it are erased, and gives the number of the last of these. EraseUpTo does it.
func Erase(ctx context.Context, tx *store.Tx, organization, actor string) (upTo int64, err error) {
	last, err := tx.LastEntry(ctx, organization, logName)
	if err != nil {
		return 0, err
	}
	_, err = Append(ctx, tx, Entry{Organization: organization, Actor: actor, Action: actionErase, Details: fmt.Append(nil, last.Seq)})
	return last.Seq, err
}

// EraseUpTo takes from entries after one and up to another what they said. Their numbers, times and hashes stay, so that the
// chain is still verified, and an anchor that was noted still fits. It does a page of them, and gives the last.
func EraseUpTo(ctx context.Context, tx *store.Tx, organization string, after, upTo int64) (last int64, err error) {
	return tx.EraseEntries(ctx, organization, logName, after, upTo, func(raw store.Entry) ([]byte, error) {
		var e Entry
		if err := json.Unmarshal(raw.Body, &e); err != nil {
			return nil, &BreakError{organization, raw.Seq, "it is not JSON"}
		}
		return json.Marshal(Entry{Organization: e.Organization, Seq: e.Seq, Time: e.Time, Former: e.Former, Hash: e.Hash, Erased: true})
	})
}
