//go:build !unix

package http1

// rawReads says that readStep works here.
const rawReads = false

func (s *source) readStep(uintptr) bool { return true }

func socketError(uintptr) bool { return false }

func nothingToRead(uintptr, []byte) bool { return false }

func socketQuiet(uintptr) bool { return false }

func writeOnce(uintptr, []byte) (int, bool, error) { return 0, true, nil }
