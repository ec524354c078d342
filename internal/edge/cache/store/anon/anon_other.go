//go:build !linux

package anon

import (
	"fmt"
	"unsafe"
)

// Map takes zeroed memory from the heap: without pointers in it, so that the collector counts
// it and does not scan it.
func Map(bytes int) (*Region, error) {
	if bytes <= 0 {
		return nil, fmt.Errorf("anonymous memory: %d bytes asked for, want at least 1", bytes)
	}
	w := make([]uint64, (bytes+7)/8)
	return &Region{unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(w)*8)}, nil
}

// Huge does nothing here.
func (r *Region) Huge() {}

// Discard does nothing here: the collector takes the memory when nobody uses it.
func (r *Region) Discard() error { return nil }

// Close lets go of the memory.
func (r *Region) Close() error {
	r.b = nil
	return nil
}
