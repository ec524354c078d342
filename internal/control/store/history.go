package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Revision is one change of one organization's documents.
type Revision struct {
	Organization string
	Number       int64 // 1, 2, 3 ... within the organization
	Position     int64 // in the log of all organizations
	Time         time.Time
	Author       string
	Reason       string
	Changes      int64 // documents that it changed
}

// DocumentChange is what a revision made of a document.
type DocumentChange struct {
	Key
	Revision int64
	Former   int64  // revision of the document before; 0: it did not exist
	Body     []byte // nil: deleted
}

// Difference is a document that is not the same at two revisions.
type Difference struct {
	Key
	Before []byte // nil: did not exist
	After  []byte // nil: does not exist
}

const revisionColumns = "organization, number, position, time, author, reason, changes"

func scanRevision(rows *sql.Rows) (v Revision, err error) {
	var us int64
	err = rows.Scan(&v.Organization, &v.Number, &v.Position, &us, &v.Author, &v.Reason, &v.Changes)
	v.Time = fromMicros(us)
	return v, err
}

// query collects up to most rows.
func query[T any](ctx context.Context, r *Reader, doing string, scan func(*sql.Rows) (T, error), text string, args ...any) ([]T, error) {
	rows, err := r.q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, r.store.fail(ctx, doing, err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, r.store.fail(ctx, doing, err)
		}
		list = append(list, v)
	}
	return list, r.store.fail(ctx, doing, rows.Err())
}

// Revisions lists an organization's revisions, the newest first; next is the cursor of the page after.
func (r *Reader) Revisions(ctx context.Context, organization, cursor string, limit int) (list []Revision, next string, err error) {
	id, before := fingerprint("revisions", organization), int64(1)<<62
	if err := openCursor(cursor, id, &before); err != nil {
		return nil, "", err
	}
	limit = r.store.limits.page(limit)
	list, err = query(ctx, r, "list revisions", scanRevision, "SELECT "+revisionColumns+
		" FROM revisions WHERE organization = $1 AND number < $2 ORDER BY number DESC LIMIT $3", organization, before, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next = sealCursor(id, list[limit-1].Number)
	}
	return list, next, err
}

// Log lists the revisions of all organizations after a position, the oldest first. One position's revisions come
// together, so a page may be longer than limit; the next begins after the last one's Position.
func (r *Reader) Log(ctx context.Context, after int64, limit int) ([]Revision, error) {
	limit = r.store.limits.page(limit)
	return query(ctx, r, "read the log", scanRevision, "SELECT "+revisionColumns+` FROM revisions WHERE position > $1 AND position <=
(SELECT coalesce(max(position), 0) FROM (SELECT position FROM revisions WHERE position > $1 ORDER BY position LIMIT $2) AS p)
ORDER BY position, organization`, after, limit)
}

// Changes lists what a revision changed, in the order of project, kind, name.
func (r *Reader) Changes(ctx context.Context, organization string, number int64, cursor string, limit int) (list []DocumentChange, next string, err error) {
	id := fingerprint("changes", organization, fmt.Sprint(number))
	var last Key
	if err := openCursor(cursor, id, &last); err != nil {
		return nil, "", err
	}
	limit = r.store.limits.page(limit)
	list, err = query(ctx, r, "list changes", scanChange, `SELECT organization, project, kind, name, number, former, body FROM changes
WHERE organization = $1 AND number = $2 AND (project, kind, name) > ($3, $4, $5) ORDER BY project, kind, name LIMIT $6`,
		organization, number, last.Project, last.Kind, last.Name, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next = sealCursor(id, list[limit-1].Key)
	}
	return list, next, err
}

func scanChange(rows *sql.Rows) (c DocumentChange, err error) {
	err = rows.Scan(&c.Organization, &c.Project, &c.Kind, &c.Name, &c.Revision, &c.Former, &c.Body)
	return c, err
}

// History lists what became of one document, the newest first. Who and why is told by the revision of that number.
func (r *Reader) History(ctx context.Context, key Key, cursor string, limit int) (list []DocumentChange, next string, err error) {
	id, before := fingerprint("history", key.String()), int64(1)<<62
	if err := openCursor(cursor, id, &before); err != nil {
		return nil, "", err
	}
	limit = r.store.limits.page(limit)
	list, err = query(ctx, r, "read a document's history", scanChange, `SELECT organization, project, kind, name, number, former, body FROM changes
WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4 AND number < $5 ORDER BY number DESC LIMIT $6`,
		key.Organization, key.Project, key.Kind, key.Name, before, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next = sealCursor(id, list[limit-1].Revision)
	}
	return list, next, err
}

// Revision reads one revision, or ErrNotFound.
func (r *Reader) Revision(ctx context.Context, organization string, number int64) (Revision, error) {
	list, err := query(ctx, r, "read a revision", scanRevision, "SELECT "+revisionColumns+" FROM revisions WHERE organization = $1 AND number = $2", organization, number)
	if err != nil || len(list) == 0 {
		return Revision{}, orNotFound(err, fmt.Sprintf("revision %d of %s", number, organization))
	}
	return list[0], nil
}

func orNotFound(err error, what string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, ErrNotFound)
}

// At reads a document as it was at an organization's revision, or ErrNotFound.
func (r *Reader) At(ctx context.Context, key Key, number int64) (Document, error) {
	if err := r.reaches(ctx, key.Organization, number); err != nil {
		return Document{}, err
	}
	d, err := r.at(ctx, key, number)
	if err == nil && d.Body == nil {
		err = orNotFound(nil, fmt.Sprintf("%s at revision %d", key, number))
	}
	return d, err
}

func (r *Reader) at(ctx context.Context, key Key, number int64) (Document, error) {
	d := Document{Key: key}
	row := r.q.QueryRowContext(ctx, `SELECT number, body FROM changes WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4
AND number <= $5 ORDER BY number DESC LIMIT 1`, key.Organization, key.Project, key.Kind, key.Name, number)
	if err := row.Scan(&d.Revision, &d.Body); err != nil && !isNoRows(err) {
		return Document{}, r.store.fail(ctx, "read "+key.String(), err)
	}
	return d, nil
}

// reaches refuses revisions that are not made yet or not told any more.
func (r *Reader) reaches(ctx context.Context, organization string, number int64) error {
	o, err := r.Organization(ctx, organization)
	switch {
	case err != nil:
		return err
	case number > o.Revision:
		return orNotFound(nil, fmt.Sprintf("revision %d of %s", number, organization))
	case number < o.Pruned:
		return fmt.Errorf("revision %d of %s, the oldest is %d: %w", number, organization, o.Pruned, ErrPruned)
	}
	return nil
}

// Diff lists the documents of an organization that differ between two revisions, either way; 0 is before the first.
// A page may hold fewer documents than limit and still have a next one: what changed there and back is no difference.
func (r *Reader) Diff(ctx context.Context, organization string, from, to int64, cursor string, limit int) (list []Difference, next string, err error) {
	id := fingerprint("diff", organization, fmt.Sprint(from), fmt.Sprint(to))
	var last Key
	if err := openCursor(cursor, id, &last); err != nil {
		return nil, "", err
	}
	for _, n := range []int64{from, to} {
		if err := r.reaches(ctx, organization, n); err != nil {
			return nil, "", err
		}
	}
	limit = r.store.limits.page(limit)
	keys, err := query(ctx, r, "compare revisions", func(rows *sql.Rows) (Key, error) {
		k := Key{Organization: organization}
		return k, rows.Scan(&k.Project, &k.Kind, &k.Name)
	}, `SELECT DISTINCT project, kind, name FROM changes WHERE organization = $1 AND number > $2 AND number <= $3
AND (project, kind, name) > ($4, $5, $6) ORDER BY project, kind, name LIMIT $7`,
		organization, min(from, to), max(from, to), last.Project, last.Kind, last.Name, limit+1)
	if err != nil {
		return nil, "", err
	}
	var size int64
	for i, k := range keys {
		if i == limit || size > r.store.limits.PageBytes {
			return list, sealCursor(id, keys[i-1]), nil
		}
		before, err := r.at(ctx, k, from)
		if err != nil {
			return nil, "", err
		}
		after, err := r.at(ctx, k, to)
		if err != nil {
			return nil, "", err
		}
		if (before.Body == nil) == (after.Body == nil) && bytes.Equal(before.Body, after.Body) {
			continue
		}
		size += int64(len(before.Body) + len(after.Body))
		list = append(list, Difference{k, before.Body, after.Body})
	}
	return list, "", nil
}

// Prune forgets what documents of an organization were before a revision. The state at that revision and at each later
// one is kept. Revision numbers go on.
func (s *Store) Prune(ctx context.Context, c Change, organization string, before int64) error {
	_, err := s.Update(ctx, c, func(tx *Tx) error { return tx.Prune(ctx, organization, before) })
	return err
}

// Prune is Store.Prune as a part of a change, before it writes anything of the organization.
func (tx *Tx) Prune(ctx context.Context, organization string, before int64) error {
	o, err := tx.Reader.Organization(ctx, organization)
	if err != nil {
		return err
	}
	if before > o.Revision {
		return orNotFound(nil, fmt.Sprintf("revision %d of %s", before, organization))
	}
	if before <= o.Pruned {
		return nil
	}
	// What was deleted by then needs no row to be absent; of the rest the newest row by then says how it was.
	for _, text := range []string{
		`DELETE FROM changes WHERE organization = $1 AND number < $2 AND (body IS NULL OR EXISTS (SELECT 1 FROM changes AS d
WHERE d.organization = changes.organization AND d.project = changes.project AND d.kind = changes.kind AND d.name = changes.name
AND d.number > changes.number AND d.number <= $2))`,
		`DELETE FROM revisions WHERE organization = $1 AND number < $2 AND NOT EXISTS (SELECT 1 FROM changes AS c
WHERE c.organization = revisions.organization AND c.number = revisions.number)`,
		"UPDATE organizations SET pruned = $2 WHERE organization = $1",
	} {
		if _, err := tx.q.ExecContext(ctx, text, organization, before); err != nil {
			return tx.store.fail(ctx, "prune "+organization, err)
		}
	}
	return tx.keep()
}
