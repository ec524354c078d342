package store

import (
	"context"
	"errors"
	"fmt"
)

// eraseMark is the room for the mark that an entry was erased.
const eraseMark = 16

// EraseHistory forgets what a document that is no more was, and that it ever was. Revisions keep their numbers, so a reader
// of an old one does not find it there: it is for what must not be kept, such as who somebody was.
func (tx *Tx) EraseHistory(ctx context.Context, key Key) error {
	if err := tx.Check(ctx, key, Absent); err != nil {
		return err
	}
	_, err := tx.q.ExecContext(ctx, "DELETE FROM changes WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4",
		key.Organization, key.Project, key.Kind, key.Name)
	return tx.store.fail(ctx, "erase the history of "+key.String(), errors.Join(err, tx.keep()))
}

// EraseMessages empties what messages to an organization say; their numbers stay, so that no consumer misses one.
func (tx *Tx) EraseMessages(ctx context.Context, organization string) error {
	_, err := tx.q.ExecContext(ctx, "UPDATE outbox SET payload = $1 WHERE organization = $2 AND payload IS NOT NULL", []byte("{}"), organization)
	return tx.store.fail(ctx, "erase messages", errors.Join(err, tx.keep()))
}

// EraseEntries writes a log's entries anew, those after one and up to another, at most Limits.PageItems of them, and gives
// the last: with fn, which leaves of a body what may stay. It is not for changing them: numbers and times stay.
func (tx *Tx) EraseEntries(ctx context.Context, organization, log string, after, upTo int64, fn func(Entry) ([]byte, error)) (last int64, err error) {
	list, err := tx.Entries(ctx, organization, log, after, 0)
	if err != nil {
		return after, err
	}
	last = after
	for _, e := range list {
		if e.Seq > upTo {
			break
		}
		body, err := fn(e)
		if err != nil {
			return last, err
		}
		if err := checkJSON("the entry", body, int64(len(e.Body))+eraseMark); err != nil {
			return last, fmt.Errorf("an entry does not grow: %w", err)
		}
		if _, err := tx.q.ExecContext(ctx, "UPDATE entries SET body = $1 WHERE organization = $2 AND log = $3 AND seq = $4", body, organization, log, e.Seq); err != nil {
			return last, tx.store.fail(ctx, "erase entries", err)
		}
		last = e.Seq
	}
	return last, tx.keep()
}
