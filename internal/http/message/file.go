package message

import (
	"context"
	"syscall"
)

// FileRange is bytes of a body of which the kernel can send a part: first Lead, then Len bytes of a
// file from Off on.
type FileRange struct {
	Lead []byte
	File syscall.RawConn // its Control lends the file's descriptor
	Off  int64
	Len  int64
}

// FileBody is a Body that may lie in a file. Its bytes are those that Next would give.
type FileBody interface {
	Body
	// NextFile is Next for who can have the kernel send a file: it takes the next bytes off the body and
	// says in r where they are, good until the call after. False without an error says that the next
	// bytes are in no file, and takes none: Next has them. Len may be 0.
	NextFile(ctx context.Context, r *FileRange) (bool, error)
}

// FileSender is a Control that may call NextFile of an answer's Body.
type FileSender interface {
	// SendsFiles says whether it will. It costs nothing.
	SendsFiles() bool
}
