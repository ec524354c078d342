// Package anon lends anonymous memory: zeroed, outside of Go's heap, so that the collector neither
// scans it nor counts it. Pages cost nothing before they are first written.
package anon

import "unsafe"

// Region is a piece of anonymous memory. It stays where it is until Close.
type Region struct{ b []byte }

// Bytes is the memory of the region.
func (r *Region) Bytes() []byte { return r.b }

// Words is the memory of the region as 64-bit words; it begins at the start of a page.
func (r *Region) Words() []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(r.b))), len(r.b)/8)
}
