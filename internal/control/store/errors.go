package store

import (
	"errors"
	"fmt"
)

// What a caller may tell apart, with errors.Is.
var (
	// ErrNotFound: there is no such document, revision or entry.
	ErrNotFound = errors.New("not found")
	// ErrBusy: the database or the line before it is occupied; the same change may be tried again.
	ErrBusy = errors.New("the store is busy; try again")
	// ErrFull: there is no room on the disk. Nothing was changed.
	ErrFull = errors.New("the store's disk is full; make room, or raise its bound")
	// ErrUnavailable: the database cannot be reached, or does not answer. Nothing was changed.
	ErrUnavailable = errors.New("the store's database cannot be reached")
	// ErrUncertain: the connection broke while a change was committed. It is there whole or not at all: read, then decide.
	ErrUncertain = errors.New("it is not known whether the change was made")
	// ErrDamaged: the database file is damaged; restore a backup.
	ErrDamaged = errors.New("the store's database is damaged; restore a backup")
	// ErrFenced: another process leads since this lease was taken. Nothing was changed.
	ErrFenced = errors.New("this process no longer leads")
	// ErrNotLeader: another process leads.
	ErrNotLeader = errors.New("another process leads")
	// ErrPruned: the history does not reach back so far any more.
	ErrPruned = errors.New("the history was pruned since")
	// ErrCursor: the cursor is not of this list.
	ErrCursor = errors.New("the cursor is not of this list; begin without one")
	// ErrInvalid: a key, body or argument is not well formed.
	ErrInvalid = errors.New("not well formed")
	// ErrNotEmpty: a backup is restored only into an empty store.
	ErrNotEmpty = errors.New("the store is not empty; restore into a new one")
	// ErrBackup: the backup is damaged or of another kind. Nothing was restored.
	ErrBackup = errors.New("the backup cannot be restored")
)

// ConflictError says that a document is not at the revision that the writer had read.
type ConflictError struct {
	Key  Key
	Want int64 // the revision that was expected; 0: none
	Have int64 // the revision that there is; 0: none
}

// Error names both revisions.
func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("%s exists already, at revision %d", e.Key, e.Have)
	case e.Have == 0:
		return fmt.Sprintf("%s was expected at revision %d and does not exist", e.Key, e.Want)
	}
	return fmt.Sprintf("%s was expected at revision %d and is at revision %d; read it again and repeat the change", e.Key, e.Want, e.Have)
}

// LimitError says that a bound would be exceeded.
type LimitError struct {
	What string
	Have int64
	Most int64
}

// Error names the bound.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d, and at most %d are allowed", e.What, e.Have, e.Most)
}

// VersionError says that a newer program wrote the database or the backup.
type VersionError struct {
	What  string // database or backup
	Have  int    // version of its schema
	Known int    // newest version that this program knows
}

// Error says what to do.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the %s is of schema version %d, and this program knows versions up to %d; use the newer program that wrote it", e.What, e.Have, e.Known)
}

// LostError says that messages were removed before the consumer read them.
type LostError struct {
	Consumer string
	Have     int64 // last message that the consumer acknowledged
	Oldest   int64 // oldest message that there is
}

// Error says what to do.
func (e *LostError) Error() string {
	return fmt.Sprintf("consumer %s acknowledged message %d, and the oldest that is kept is %d; read the documents anew, then skip", e.Consumer, e.Have, e.Oldest)
}
