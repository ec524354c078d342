package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Ephemeral is what is kept for a while: a session, a login that began, a count. It is no document: it has no revision, no
// history and no message, it is in no backup, and its end needs nobody.
type Ephemeral struct {
	Space   string // of its kind
	Name    string // within the space
	Owner   string // whose it is, to find or forget all of somebody's
	Expires time.Time
	Body    []byte // JSON
}

const ephemeralColumns = "space, name, owner, expires, body"

func scanEphemeral(rows *sql.Rows) (e Ephemeral, err error) {
	var us int64
	err = rows.Scan(&e.Space, &e.Name, &e.Owner, &us, &e.Body)
	e.Expires = fromMicros(us)
	return e, err
}

// Ephemeral reads one that did not expire, or ErrNotFound.
func (r *Reader) Ephemeral(ctx context.Context, space, name string) (Ephemeral, error) {
	list, err := query(ctx, r, "read what is kept for a while", scanEphemeral, "SELECT "+ephemeralColumns+
		" FROM ephemera WHERE space = $1 AND name = $2 AND expires > $3", space, name, r.Now().UnixMicro())
	if err != nil || len(list) == 0 {
		return Ephemeral{}, orNotFound(err, space+"/"+name)
	}
	return list[0], nil
}

// Ephemera lists an owner's in a space, those that expire first first, up to Limits.PageItems.
func (r *Reader) Ephemera(ctx context.Context, space, owner string) ([]Ephemeral, error) {
	return query(ctx, r, "list what is kept for a while", scanEphemeral, "SELECT "+ephemeralColumns+
		" FROM ephemera WHERE space = $1 AND owner = $2 AND expires > $3 ORDER BY expires, name LIMIT $4",
		space, owner, r.Now().UnixMicro(), r.store.limits.PageItems)
}

// CountEphemera counts those of a space that did not expire; of one owner, or with the empty one of all.
func (r *Reader) CountEphemera(ctx context.Context, space, owner string) (n int64, err error) {
	w := &where{}
	w.add("space = %s", space)
	w.add("expires > %s", r.Now().UnixMicro())
	if owner != "" {
		w.add("owner = %s", owner)
	}
	row := r.q.QueryRowContext(ctx, "SELECT count(*) FROM ephemera"+w.String(), w.args...)
	return n, r.store.fail(ctx, "count what is kept for a while", row.Scan(&n))
}

// Keep writes one over what is there under its name. A change that does nothing else takes no position in the log.
func (tx *Tx) Keep(ctx context.Context, e Ephemeral) error {
	l := tx.store.limits
	if e.Space == "" || e.Name == "" {
		return fmt.Errorf("%w: what is kept for a while has a space and a name", ErrInvalid)
	}
	if err := errors.Join(checkText("space", e.Space, maxName), checkText("name", e.Name, maxName), checkText("owner", e.Owner, maxAuthor),
		checkJSON("what is kept for a while", e.Body, l.PayloadBytes), tx.countKept(len(e.Body))); err != nil {
		return err
	}
	var there int64
	row := tx.q.QueryRowContext(ctx, "SELECT count(*) FROM ephemera WHERE space = $1 AND name = $2", e.Space, e.Name)
	if err := row.Scan(&there); err != nil {
		return tx.store.fail(ctx, "keep for a while", err)
	}
	if there == 0 {
		n, err := tx.CountEphemera(ctx, e.Space, "")
		if err != nil {
			return err
		}
		if n >= l.Ephemera {
			return &LimitError{"kept for a while as " + e.Space, n + 1, l.Ephemera}
		}
	}
	_, err := tx.q.ExecContext(ctx, `INSERT INTO ephemera (space, name, owner, expires, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (space, name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires, body = excluded.body`,
		e.Space, e.Name, e.Owner, e.Expires.UnixMicro(), e.Body)
	return tx.store.fail(ctx, "keep for a while", errors.Join(err, tx.keep()))
}

// countKept bounds what one change keeps for a while, apart from what it writes: that would give it a position.
func (tx *Tx) countKept(bytes int) error {
	tx.keptWrites++
	tx.bytes += int64(bytes)
	switch l := tx.store.limits; {
	case tx.keptWrites > l.BatchChanges:
		return &LimitError{"writes of one change", int64(tx.keptWrites), int64(l.BatchChanges)}
	case tx.bytes > l.BatchBytes:
		return &LimitError{"bytes of one change", tx.bytes, l.BatchBytes}
	}
	return nil
}

// Forget removes one, and says whether it was there and had not expired: of several who ask, one is told so.
func (tx *Tx) Forget(ctx context.Context, space, name string) (was bool, err error) {
	_, err = tx.Ephemeral(ctx, space, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	was = err == nil
	_, err = tx.q.ExecContext(ctx, "DELETE FROM ephemera WHERE space = $1 AND name = $2", space, name)
	return was, tx.store.fail(ctx, "forget", errors.Join(err, tx.keep()))
}

// ForgetOf removes all of an owner in a space, but one of that name, and gives how many went.
func (tx *Tx) ForgetOf(ctx context.Context, space, owner, but string) (n int64, err error) {
	res, err := tx.q.ExecContext(ctx, "DELETE FROM ephemera WHERE space = $1 AND owner = $2 AND name <> $3", space, owner, but)
	if err == nil {
		n, err = res.RowsAffected()
	}
	return n, tx.store.fail(ctx, "forget", errors.Join(err, tx.keep()))
}

// ForgetOwners removes all whose owner begins so, of all spaces, and gives how many went.
func (tx *Tx) ForgetOwners(ctx context.Context, prefix string) (n int64, err error) {
	if prefix == "" {
		return 0, fmt.Errorf("%w: whose?", ErrInvalid)
	}
	res, err := tx.q.ExecContext(ctx, "DELETE FROM ephemera WHERE owner >= $1 AND owner < $2", prefix, prefix+lastRune)
	if err == nil {
		n, err = res.RowsAffected()
	}
	return n, tx.store.fail(ctx, "forget", errors.Join(err, tx.keep()))
}

// Expire removes what expired, and gives how many went. The leader calls it now and then; until then they count for
// nothing and are not found.
func (s *Store) Expire(ctx context.Context) (n int64, err error) {
	_, err = s.Update(ctx, Change{Author: "expiry"}, func(tx *Tx) error {
		res, err := tx.q.ExecContext(ctx, "DELETE FROM ephemera WHERE expires <= $1", tx.now.UnixMicro())
		if err == nil {
			n, err = res.RowsAffected()
		}
		return s.fail(ctx, "expire", errors.Join(err, tx.keep()))
	})
	return n, err
}
