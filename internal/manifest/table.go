package manifest

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Table is what a PoP serves: its tenants by name. It is not changed once it was made.
type Table struct {
	tenants []Tenant
	digest  Digest
}

// NewTable makes a table of tenants, which it keeps; of two with one name the first counts.
func NewTable(tenants []Tenant) *Table {
	if !slices.IsSortedFunc(tenants, compare) {
		slices.SortStableFunc(tenants, compare)
	}
	tenants = slices.CompactFunc(tenants, func(a, b Tenant) bool { return a.Organization == b.Organization })
	t := &Table{tenants: tenants}
	h := sha256.New()
	var b [8]byte
	number := func(n int64) {
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	for i := range tenants {
		e := &tenants[i]
		number(int64(len(e.Organization)))
		_, _ = io.WriteString(h, e.Organization)
		number(e.Revision)
		number(e.Index.Size)
		h.Write(e.Index.Digest[:])
	}
	h.Sum(t.digest[:0])
	return t
}

func compare(a, b Tenant) int { return cmp.Compare(a.Organization, b.Organization) }

// Tenants in the order of their names. They are not to be changed.
func (t *Table) Tenants() []Tenant { return t.tenants }

// Digest names the table by its content.
func (t *Table) Digest() Digest { return t.digest }

// Find gives what an organization has, if it has anything.
func (t *Table) Find(organization string) (Tenant, bool) {
	i, there := slices.BinarySearchFunc(t.tenants, organization, func(e Tenant, name string) int { return cmp.Compare(e.Organization, name) })
	if !there {
		return Tenant{}, false
	}
	return t.tenants[i], true
}

// Between is what leads from one table to another.
func Between(from, to *Table) *Delta {
	d := &Delta{From: from.digest}
	a, b := from.tenants, to.tenants
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Organization < b[0].Organization:
			d.Removed = append(d.Removed, a[0].Organization)
			a = a[1:]
		case len(a) == 0 || b[0].Organization < a[0].Organization:
			d.Changed = append(d.Changed, b[0])
			b = b[1:]
		default:
			if a[0] != b[0] {
				d.Changed = append(d.Changed, b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return d
}

// ErrBase: a delta is for another table.
var ErrBase = errors.New("manifest: the delta is for another table")

// Apply gives the table to which a delta leads.
func (t *Table) Apply(d *Delta) (*Table, error) {
	if d.From != t.digest {
		return nil, fmt.Errorf("%w: %s, and this is %s", ErrBase, d.From, t.digest)
	}
	changed := make(map[string]Tenant, len(d.Changed))
	for _, e := range d.Changed {
		changed[e.Organization] = e
	}
	gone := make(map[string]bool, len(d.Removed))
	for _, name := range d.Removed {
		gone[name] = true
	}
	next := make([]Tenant, 0, len(t.tenants)+len(d.Changed))
	for _, e := range t.tenants {
		if c, is := changed[e.Organization]; is {
			next = append(next, c)
			delete(changed, e.Organization)
		} else if !gone[e.Organization] {
			next = append(next, e)
		}
	}
	for _, e := range d.Changed {
		if _, left := changed[e.Organization]; left {
			next = append(next, e)
			delete(changed, e.Organization)
		}
	}
	return NewTable(next), nil
}
