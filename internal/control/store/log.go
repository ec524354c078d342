package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Entry is a line of an append-only log of an organization.
type Entry struct {
	Seq  int64 // 1, 2, 3 ... within the log, without gaps
	Time time.Time
	Body []byte // JSON
}

// LastEntry reads the newest entry of a log; an empty log's has Seq 0.
func (r *Reader) LastEntry(ctx context.Context, organization, log string) (e Entry, err error) {
	list, err := query(ctx, r, "read a log", scanEntry,
		"SELECT seq, time, body FROM entries WHERE organization = $1 AND log = $2 ORDER BY seq DESC LIMIT 1", organization, log)
	if err != nil || len(list) == 0 {
		return Entry{}, err
	}
	return list[0], nil
}

// Entries reads a log after an entry, the oldest first, up to limit.
func (r *Reader) Entries(ctx context.Context, organization, log string, after int64, limit int) ([]Entry, error) {
	return query(ctx, r, "read a log", scanEntry, "SELECT seq, time, body FROM entries WHERE organization = $1 AND log = $2 AND seq > $3 ORDER BY seq LIMIT $4",
		organization, log, after, r.store.limits.page(limit))
}

func scanEntry(rows *sql.Rows) (e Entry, err error) {
	var us int64
	err = rows.Scan(&e.Seq, &us, &e.Body)
	e.Time = fromMicros(us)
	return e, err
}

// Append adds an entry to a log and gives its number. Entries are never changed, but for EraseEntries; they are no documents
// and have no history.
func (tx *Tx) Append(ctx context.Context, organization, log string, body []byte) (seq int64, err error) {
	if organization == "" || log == "" {
		return 0, fmt.Errorf("%w: a log has an organization and a name", ErrInvalid)
	}
	if err := errors.Join(checkText("organization", organization, maxPart), checkText("log", log, maxPart),
		checkJSON("the entry", body, tx.store.limits.PayloadBytes), tx.count(len(body))); err != nil {
		return 0, err
	}
	last, err := tx.LastEntry(ctx, organization, log)
	if err != nil {
		return 0, err
	}
	_, err = tx.q.ExecContext(ctx, "INSERT INTO entries (organization, log, seq, time, body) VALUES ($1, $2, $3, $4, $5)",
		organization, log, last.Seq+1, tx.now.UnixMicro(), body)
	return last.Seq + 1, tx.store.fail(ctx, "append to a log", err)
}

// TrimLog removes a log's entries before seq; the newest always stays, so that numbers go on.
func (tx *Tx) TrimLog(ctx context.Context, organization, log string, before int64) error {
	last, err := tx.LastEntry(ctx, organization, log)
	if err != nil {
		return err
	}
	_, err = tx.q.ExecContext(ctx, "DELETE FROM entries WHERE organization = $1 AND log = $2 AND seq < $3", organization, log, min(before, last.Seq))
	return tx.store.fail(ctx, "trim a log", errors.Join(err, tx.keep()))
}
