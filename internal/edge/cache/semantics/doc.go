// Package semantics is RFC 9111 as pure functions over message fields and instants: what a
// shared cache may keep, for how long, for whom, and how it answers conditions and ranges.
// It keeps no state, takes no lock and allocates nothing.
//
// Where a field is wrong, the reading is the one that serves less from the cache: a lifetime
// that cannot be read is 0, a directive that forbids is taken in any form.
package semantics
