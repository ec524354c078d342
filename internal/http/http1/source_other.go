//go:build !unix

package http1

import "errors"

// rawReads says that readStep works here.
const rawReads = false

func (s *source) readStep(uintptr) bool { return true }

func socketError(uintptr) bool { return false }

func nothingToRead(uintptr, []byte) bool { return false }

func socketQuiet(uintptr) bool { return false }

func writeOnce(uintptr, []byte) (int, bool, error) { return 0, true, nil }

// rawVectors says that a vector can be sent by a raw call.
const rawVectors = false

type vector struct{}

func (*vector) send(uintptr, *[3][]byte) (int, error) { return 0, errors.ErrUnsupported }
