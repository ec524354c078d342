package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// querier is what a read and a write transaction have in common.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Reader reads the state of one moment.
type Reader struct {
	q     querier
	store *Store
	now   time.Time // of a change
}

// Query says which documents a list holds, and which page of it.
type Query struct {
	Organization string  // empty: all
	Project      *string // nil: all
	Kind         string  // empty: all
	Prefix       string  // of names
	Limit        int     // documents of a page; 0 or too many: Limits.PageItems
	Cursor       string  // Page.Next of the page before
}

// Page is a part of a list, in the order of organization, project, kind, name.
type Page struct {
	Documents []Document
	Next      string // cursor of the next page; empty at the end
}

// OrganizationState is what a store knows of an organization.
type OrganizationState struct {
	Revision  int64 // the newest; 0: nothing was ever written
	Documents int64
	Bytes     int64 // of their bodies
	Pruned    int64 // oldest revision that the history still tells in full
}

func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// Now is the time by the store's clock; in a change it is that of the change.
func (r *Reader) Now() time.Time {
	if r.now.IsZero() {
		return fromMicros(r.store.clock().UnixMicro())
	}
	return r.now
}

// Get reads one document, or ErrNotFound.
func (r *Reader) Get(ctx context.Context, key Key) (Document, error) {
	d := Document{Key: key}
	var created, updated int64
	row := r.q.QueryRowContext(ctx, "SELECT revision, created, updated, body FROM documents WHERE organization = $1 AND project = $2 AND kind = $3 AND name = $4",
		key.Organization, key.Project, key.Kind, key.Name)
	switch err := row.Scan(&d.Revision, &created, &updated, &d.Body); {
	case isNoRows(err):
		return Document{}, fmt.Errorf("%s: %w", key, ErrNotFound)
	case err != nil:
		return Document{}, r.store.fail(ctx, "read "+key.String(), err)
	}
	d.Created, d.Updated = fromMicros(created), fromMicros(updated)
	return d, nil
}

// Organization reads an organization's counters; one that nobody wrote to has zeroes.
func (r *Reader) Organization(ctx context.Context, name string) (o OrganizationState, err error) {
	row := r.q.QueryRowContext(ctx, "SELECT revision, documents, bytes, pruned FROM organizations WHERE organization = $1", name)
	if err = row.Scan(&o.Revision, &o.Documents, &o.Bytes, &o.Pruned); err != nil && !isNoRows(err) {
		return o, r.store.fail(ctx, "read the organization "+name, err)
	}
	return o, nil
}

// Position is the newest position in the log of all organizations.
func (r *Reader) Position(ctx context.Context) (n int64, err error) {
	err = r.q.QueryRowContext(ctx, "SELECT position FROM head WHERE one = 1").Scan(&n)
	return n, r.store.fail(ctx, "read the position", err)
}

// where collects conditions and their arguments.
type where struct {
	parts []string
	args  []any
}

func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return fmt.Sprintf("$%d", len(w.args))
}

func (w *where) add(format string, v any) { w.parts = append(w.parts, fmt.Sprintf(format, w.arg(v))) }

// after asks for rows whose columns, in order, come after the values.
func (w *where) after(columns []string, values []any) {
	marks := make([]string, len(values))
	for i, v := range values {
		marks[i] = w.arg(v)
	}
	w.parts = append(w.parts, "("+strings.Join(columns, ", ")+") > ("+strings.Join(marks, ", ")+")")
}

func (w *where) String() string {
	if len(w.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.parts, " AND ")
}

// prefix asks for names that begin so, as a range, which an index serves.
func (w *where) prefix(prefix string) {
	if prefix == "" {
		return
	}
	w.add("name >= %s", prefix)
	w.add("name < %s", prefix+lastRune) // no name holds it
}

// List reads a page of documents. A document that exists all the while is in exactly one page, whatever else changes
// between pages.
func (r *Reader) List(ctx context.Context, q Query) (Page, error) {
	var last Key
	if err := openCursor(q.Cursor, q.fingerprint(), &last); err != nil {
		return Page{}, err
	}
	w, order := q.conditions(last)
	limit := r.store.limits.page(q.Limit)
	rows, err := r.q.QueryContext(ctx, "SELECT organization, project, kind, name, revision, created, updated, body FROM documents"+
		w.String()+" ORDER BY "+order+" LIMIT "+w.arg(limit+1), w.args...)
	if err != nil {
		return Page{}, r.store.fail(ctx, "list documents", err)
	}
	defer rows.Close()
	var p Page
	var bytes int64
	for rows.Next() {
		var d Document
		var created, updated int64
		if err := rows.Scan(&d.Organization, &d.Project, &d.Kind, &d.Name, &d.Revision, &created, &updated, &d.Body); err != nil {
			return Page{}, r.store.fail(ctx, "list documents", err)
		}
		bytes += int64(len(d.Body))
		if n := len(p.Documents); n == limit || n > 0 && bytes > r.store.limits.PageBytes {
			p.Next = sealCursor(q.fingerprint(), p.Documents[n-1].Key)
			return p, nil
		}
		d.Created, d.Updated = fromMicros(created), fromMicros(updated)
		p.Documents = append(p.Documents, d)
	}
	return p, r.store.fail(ctx, "list documents", rows.Err())
}

// conditions orders by the columns that are not fixed, so that an index gives the order.
func (q Query) conditions(last Key) (*where, string) {
	w := &where{}
	columns, values := []string{}, []any{}
	part := func(column, fixed, at string, isFixed bool) {
		if isFixed {
			w.add(column+" = %s", fixed)
			return
		}
		columns, values = append(columns, column), append(values, at)
	}
	project := ""
	if q.Project != nil {
		project = *q.Project
	}
	part("organization", q.Organization, last.Organization, q.Organization != "")
	part("project", project, last.Project, q.Project != nil)
	part("kind", q.Kind, last.Kind, q.Kind != "")
	part("name", "", last.Name, false)
	w.prefix(q.Prefix)
	if last != (Key{}) {
		w.after(columns, values)
	}
	return w, strings.Join(columns, ", ")
}

func (q Query) fingerprint() uint64 {
	project := "*"
	if q.Project != nil {
		project = "=" + *q.Project
	}
	return fingerprint("list", q.Organization, project, q.Kind, q.Prefix)
}

func (l Limits) page(asked int) int {
	if asked <= 0 || asked > l.PageItems {
		return l.PageItems
	}
	return asked
}

// fingerprint tells lists apart, so that a cursor of one is not taken for another.
func fingerprint(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

type cursor struct {
	List uint64          `json:"l"`
	Last json.RawMessage `json:"k"`
}

func sealCursor(list uint64, last any) string {
	k, err := json.Marshal(last)
	if err == nil {
		k, err = json.Marshal(cursor{list, k})
	}
	if err != nil {
		return "" // keys and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(k)
}

func openCursor(s string, list uint64, last any) error {
	if s == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	var c cursor
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil {
		err = json.Unmarshal(c.Last, last)
	}
	if err != nil || c.List != list {
		return ErrCursor
	}
	return nil
}

// Organizations gives the newest revisions of all organizations to whose documents somebody ever wrote.
func (r *Reader) Organizations(ctx context.Context) (map[string]int64, error) {
	type row struct {
		name     string
		revision int64
	}
	rows, err := query(ctx, r, "list organizations", func(rows *sql.Rows) (x row, err error) {
		return x, rows.Scan(&x.name, &x.revision)
	}, "SELECT organization, revision FROM organizations WHERE revision > 0")
	all := make(map[string]int64, len(rows))
	for _, x := range rows {
		all[x.name] = x.revision
	}
	return all, err
}
