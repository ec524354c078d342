package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Expect is the revision at which a writer expects a document.
type Expect int64

const (
	// Any writes whatever is there.
	Any Expect = -1
	// Absent writes only what does not exist.
	Absent Expect = 0
)

// Tx is a change in the making. It is for one goroutine, and only inside of Update.
type Tx struct {
	Reader
	change Change

	head       head
	writes     int
	keptWrites int  // of what is kept for a while
	kept       bool // the store's own books changed: committed, and no position in the log
	bytes      int64
	orgs       map[string]*orgState
}

// head is the row that all writers lock: so positions and messages become visible in their order, without gaps.
type head struct{ position, message int64 }

// orgState is an organization as this change leaves it.
type orgState struct {
	number    int64 // the revision that is being made
	documents int64
	bytes     int64
	changes   int64
	pruned    int64
	changed   bool
}

// Change is who changes, and why.
func (tx *Tx) Change() Change { return tx.change }

func (tx *Tx) begin(ctx context.Context) error {
	row := tx.q.QueryRowContext(ctx, "SELECT position, message FROM head WHERE one = 1"+tx.store.engine.forUpdate)
	if err := row.Scan(&tx.head.position, &tx.head.message); err != nil {
		return tx.store.fail(ctx, "take the writers' lock", err)
	}
	tx.head.position++
	tx.now = fromMicros(tx.store.clock().UnixMicro())
	if l := tx.change.Lease; l != nil {
		var term int64
		err := tx.q.QueryRowContext(ctx, "SELECT term FROM leaders WHERE name = $1", l.name).Scan(&term)
		if err != nil {
			return tx.store.fail(ctx, "read the leader's term", err)
		}
		if term != l.term {
			return fmt.Errorf("%w: its term is %d, and %d is under way", ErrFenced, l.term, term)
		}
	}
	return nil
}

func (tx *Tx) organization(ctx context.Context, name string) (*orgState, error) {
	if o := tx.orgs[name]; o != nil {
		return o, nil
	}
	o := &orgState{}
	row := tx.q.QueryRowContext(ctx, "SELECT revision, documents, bytes, pruned FROM organizations WHERE organization = $1", name)
	err := row.Scan(&o.number, &o.documents, &o.bytes, &o.pruned)
	if err != nil && !isNoRows(err) {
		return nil, tx.store.fail(ctx, "read the organization "+name, err)
	}
	o.number++
	tx.orgs[name] = o
	return o, nil
}

// count bounds what one change writes.
func (tx *Tx) count(bytes int) error {
	tx.writes++
	tx.bytes += int64(bytes)
	switch l := tx.store.limits; {
	case tx.writes > l.BatchChanges:
		return &LimitError{"writes of one change", int64(tx.writes), int64(l.BatchChanges)}
	case tx.bytes > l.BatchBytes:
		return &LimitError{"bytes of one change", tx.bytes, l.BatchBytes}
	}
	return nil
}

// Put writes a document and gives its new revision.
func (tx *Tx) Put(ctx context.Context, key Key, body []byte, expect Expect) (int64, error) {
	l := tx.store.limits
	if err := errors.Join(l.checkKey(key), checkJSON("the document "+key.String(), body, l.DocumentBytes), tx.count(len(body))); err != nil {
		return 0, err
	}
	org, former, size, err := tx.former(ctx, key, expect)
	if err != nil {
		return 0, err
	}
	if former == 0 {
		if org.documents >= l.Documents {
			return 0, &LimitError{"documents of organization " + key.Organization, org.documents + 1, l.Documents}
		}
		org.documents++
	}
	org.bytes += int64(len(body)) - size
	_, err = tx.q.ExecContext(ctx, `INSERT INTO documents (organization, project, kind, name, revision, created, updated, body)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7) ON CONFLICT (organization, project, kind, name)
DO UPDATE SET revision = excluded.revision, updated = excluded.updated, body = excluded.body`,
		key.Organization, key.Project, key.Kind, key.Name, org.number, tx.now.UnixMicro(), body)
	if err != nil {
		return 0, tx.store.fail(ctx, "write "+key.String(), err)
	}
	return org.number, tx.record(ctx, org, key, former, body)
}

// Delete removes a document. With Any, one that does not exist is no error.
func (tx *Tx) Delete(ctx context.Context, key Key, expect Expect) error {
	if err := errors.Join(tx.store.limits.checkKey(key), tx.count(0)); err != nil {
		return err
	}
	org, former, size, err := tx.former(ctx, key, expect)
	if err != nil || former == 0 {
		return err
	}
	org.documents--
	org.bytes -= size
	_, err = tx.q.ExecContext(ctx, "DELETE FROM documents WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4",
		key.Organization, key.Project, key.Kind, key.Name)
	if err != nil {
		return tx.store.fail(ctx, "delete "+key.String(), err)
	}
	return tx.record(ctx, org, key, former, nil)
}

// Check refuses the change unless the document is as expected: for what was read and is not written.
func (tx *Tx) Check(ctx context.Context, key Key, expect Expect) error {
	_, _, _, err := tx.former(ctx, key, expect)
	return err
}

// former compares the document that there is with what the writer expects.
func (tx *Tx) former(ctx context.Context, key Key, expect Expect) (org *orgState, revision, size int64, err error) {
	if org, err = tx.organization(ctx, key.Organization); err != nil {
		return nil, 0, 0, err
	}
	row := tx.q.QueryRowContext(ctx, "SELECT revision, length(body) FROM documents WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4",
		key.Organization, key.Project, key.Kind, key.Name)
	if err = row.Scan(&revision, &size); err != nil && !isNoRows(err) {
		return nil, 0, 0, tx.store.fail(ctx, "read "+key.String(), err)
	}
	if expect != Any && int64(expect) != revision {
		return nil, 0, 0, &ConflictError{Key: key, Want: int64(expect), Have: revision}
	}
	return org, revision, size, nil
}

// record writes what became of a document to the history. Of several writes in one change the last counts, and the
// revision before the first one stays.
func (tx *Tx) record(ctx context.Context, org *orgState, key Key, former int64, body []byte) error {
	org.changed = true
	_, err := tx.q.ExecContext(ctx, `INSERT INTO changes (organization, number, project, kind, name, former, body)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (organization, number, project, kind, name) DO UPDATE SET body = excluded.body`,
		key.Organization, org.number, key.Project, key.Kind, key.Name, former, orNull(body))
	if err == nil && former != org.number {
		org.changes++
	}
	return tx.store.fail(ctx, "write the history of "+key.String(), err)
}

// Emit adds a message to the outbox, beside those of topic "revision" that each changed organization gets.
func (tx *Tx) Emit(ctx context.Context, topic, organization string, payload []byte) error {
	if topic == "" || topic == TopicRevision {
		return fmt.Errorf("%w: topic %q is not the caller's", ErrInvalid, topic)
	}
	if err := errors.Join(checkText("topic", topic, maxPart), checkText("organization", organization, maxPart),
		checkJSON("the payload", payload, tx.store.limits.PayloadBytes), tx.count(len(payload))); err != nil {
		return err
	}
	return tx.emit(ctx, topic, organization, 0, payload)
}

func (tx *Tx) emit(ctx context.Context, topic, organization string, number int64, payload []byte) error {
	tx.head.message++
	_, err := tx.q.ExecContext(ctx, "INSERT INTO outbox (id, position, topic, organization, revision, time, payload) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		tx.head.message, tx.head.position, topic, organization, number, tx.now.UnixMicro(), orNull(payload))
	return tx.store.fail(ctx, "write a message", err)
}

// orNull keeps apart what is deleted and what is empty, which drivers may not.
func orNull(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// keep commits the change of the store's own books.
func (tx *Tx) keep() error {
	tx.kept = true
	return nil
}

// finish writes what belongs to the change as a whole.
func (tx *Tx) finish(ctx context.Context) (Commit, error) {
	if tx.writes == 0 {
		return Commit{}, nil
	}
	done := Commit{Position: tx.head.position, Revisions: map[string]int64{}, Time: tx.now}
	for _, name := range slices.Sorted(maps.Keys(tx.orgs)) {
		o := tx.orgs[name]
		if !o.changed {
			continue
		}
		done.Revisions[name] = o.number
		if err := tx.finishOrganization(ctx, name, o); err != nil {
			return Commit{}, err
		}
	}
	_, err := tx.q.ExecContext(ctx, "UPDATE head SET position = $1, message = $2 WHERE one = 1", tx.head.position, tx.head.message)
	if err == nil && tx.store.engine.notify != "" {
		_, err = tx.q.ExecContext(ctx, tx.store.engine.notify)
	}
	return done, tx.store.fail(ctx, "end the change", err)
}

func (tx *Tx) finishOrganization(ctx context.Context, name string, o *orgState) error {
	_, err := tx.q.ExecContext(ctx, `INSERT INTO organizations (organization, revision, documents, bytes, pruned) VALUES ($1, $2, $3, $4, 0)
ON CONFLICT (organization) DO UPDATE SET revision = excluded.revision, documents = excluded.documents, bytes = excluded.bytes`,
		name, o.number, o.documents, o.bytes)
	if err == nil {
		_, err = tx.q.ExecContext(ctx, "INSERT INTO revisions (organization, number, position, time, author, reason, changes) VALUES ($1, $2, $3, $4, $5, $6, $7)",
			name, o.number, tx.head.position, tx.now.UnixMicro(), tx.change.Author, tx.change.Reason, o.changes)
	}
	if err != nil {
		return tx.store.fail(ctx, "write a revision of "+name, err)
	}
	return tx.emit(ctx, TopicRevision, name, o.number, nil)
}
