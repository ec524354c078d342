// Package fleet is what control planes and PoPs say to each other on the bus: the messages, with their bounds. All are JSON
// but the pieces of blobs. A field that a reader does not know is left alone, so that the versions N and N-1 work
// together; what a field means never changes.
package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/manifest"
)

// Bounds of messages.
const (
	// MaxWatched is how many organizations a PoP counts apart.
	MaxWatched = 64
	// MaxRefused is how many refused bundles a beat names.
	MaxRefused = 64
	// MaxText bounds texts in bytes; a longer one is cut.
	MaxText = 4096
	// Piece is how much of a blob is sent at once, in bytes.
	Piece = 512 << 10
	// MaxPurges is how many purges an answer holds.
	MaxPurges = 1000
	// Inline is how many bytes of blobs a Head brings along.
	Inline = 256 << 10
	// TablePage is how many tenants a TableAnswer holds.
	TablePage = 4096
)

// Beat is a PoP's heartbeat, on up.NAME.beat.
type Beat struct {
	// Position and Table of what it serves.
	manifest.Position
	Table manifest.Digest `json:"table"`
	// Version of its software, and the formats of bundles that it reads.
	Version string `json:"version"`
	Formats []int  `json:"formats"`
	// Started is when its process began; Time is its clock.
	Started time.Time `json:"started"`
	Time    time.Time `json:"time"`
	// Purged is the number of the last purge that it obeys.
	Purged PurgePosition `json:"purged"`
	// Keys is the number of the key set that it trusts.
	Keys uint64 `json:"keys"`
	// Refused are bundles of the table that it does not serve; at most MaxRefused.
	Refused []Refused `json:"refused,omitempty"`
	// Pinned says who wants it to stay where it is, and why; empty where it follows.
	Pinned string `json:"pinned,omitempty"`
	// Problem is what else is wrong, such as a full disk.
	Problem string `json:"problem,omitempty"`
	Gauges  Gauges `json:"gauges"`
	// Watched are counters since Started, of the organizations that it was asked to watch.
	Watched map[string]Sample `json:"watched,omitempty"`
}

// BeatAnswer is what a PoP is told on its beat.
type BeatAnswer struct {
	// Head is there where the PoP has another manifest than it should. The table comes by TableRequest.
	Head *manifest.Signed `json:"head,omitempty"`
	// Watch are the organizations to count apart from now on; at most MaxWatched.
	Watch []string `json:"watch,omitempty"`
	// Purge is the newest purge.
	Purge PurgePosition `json:"purge"`
	// Keys is there where the PoP has an older set.
	Keys json.RawMessage `json:"keys,omitempty"`
}

// Refused is a bundle that a PoP does not take.
type Refused struct {
	Organization string          `json:"organization"`
	Index        manifest.Digest `json:"index"`
	Why          string          `json:"why"`
}

// Head brings a new manifest, on down.NAME.head. With Delta, which leads from a table that the PoP may have to the new
// one, and Blobs, which may be all that it lacks, nothing has to be asked for.
type Head struct {
	manifest.Signed
	Delta *manifest.Delta `json:"delta,omitempty"`
	Blobs [][]byte        `json:"blobs,omitempty"` // Inline bytes at most
}

// TableRequest asks for the table of a head, on up.NAME.table, from the tenant after After on.
type TableRequest struct {
	Table manifest.Digest `json:"table"`
	After string          `json:"after,omitempty"`
}

// TableAnswer is a page of a table. Gone says that there is no such table any more: wait for the next head.
type TableAnswer struct {
	Tenants []manifest.Tenant `json:"tenants,omitempty"`
	More    bool              `json:"more,omitempty"`
	Gone    bool              `json:"gone,omitempty"`
}

// BlobRequest asks for Piece bytes of a blob from Offset on, on up.NAME.blob. The answer is made by PieceAnswer.
type BlobRequest struct {
	Digest manifest.Digest `json:"digest"`
	Offset int64           `json:"offset"`
}

// ErrGone: the blob is not there.
var ErrGone = errors.New("fleet: there is no such blob")

// PieceAnswer is a piece of a blob as it is sent; nil data is a blob that is not there.
func PieceAnswer(data []byte) []byte {
	if data == nil {
		return []byte{0}
	}
	return append([]byte{1}, data...)
}

// ReadPiece is the piece in an answer, or ErrGone.
func ReadPiece(answer []byte) ([]byte, error) {
	switch {
	case len(answer) == 0 || answer[0] > 1 || len(answer) > Piece+1:
		return nil, fmt.Errorf("fleet: %d bytes are no piece of a blob", len(answer))
	case answer[0] == 0:
		return nil, ErrGone
	}
	return answer[1:], nil
}

// PurgePosition orders purges, as manifest.Position does manifests.
type PurgePosition struct {
	Epoch  uint64 `json:"epoch"`
	Number uint64 `json:"number"`
}

// Purge is a numbered purge, on all.purge. Numbers have no gaps within an epoch.
type Purge struct {
	PurgePosition
	// Entry is a purge.Entry; its own number is the PoP's to give.
	Entry json.RawMessage `json:"entry"`
}

// PurgesRequest asks for the purges after a position, on up.NAME.purges.
type PurgesRequest struct {
	After PurgePosition `json:"after"`
}

// PurgesAnswer are the next MaxPurges at most. Forgotten says that the log does not reach back so far: all that is older
// than the first one counts as purged.
type PurgesAnswer struct {
	Purges    []Purge       `json:"purges,omitempty"`
	Forgotten bool          `json:"forgotten,omitempty"`
	Newest    PurgePosition `json:"newest"`
}

// Purged says that a PoP obeys all purges up to a position, on up.NAME.purged.
type Purged struct {
	PurgePosition
}

// UsageAnswer says what became of a batch of usage records, which came as usage.Batch writes it on up.NAME.usage.
type UsageAnswer struct {
	// Kept is the number of the batch's last record, when the batch is counted and on disk; 0 where it is not.
	Kept int64 `json:"kept,omitempty"`
	// Want is the number of the first record that is missed before the batch's; 0 for none.
	Want int64 `json:"want,omitempty"`
	// Why it is not kept.
	Why string `json:"why,omitempty"`
}

// Report is something that happened at a PoP, on up.NAME.report.
type Report struct {
	Kind         ReportKind `json:"kind"`
	Organization string     `json:"organization,omitempty"`
	Text         string     `json:"text"`
	Time         time.Time  `json:"time"`
}

// ReportKind is what kind of thing happened.
type ReportKind string

// The kinds of reports.
const (
	ReportRefused  ReportKind = "refused"  // a manifest or a bundle
	ReportFellBack ReportKind = "fellback" // to an older state
	ReportOrdered  ReportKind = "ordered"  // a person did something at the PoP itself
	ReportTrouble  ReportKind = "trouble"  // disk, clock ...
)

// Sample is what a PoP counted of an organization.
type Sample struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"`  // answered with a 5xx by the edge or an origin
	Known    int64 `json:"known"`   // requests of visitors known to be good
	Blocked  int64 `json:"blocked"` // of those, refused by a protection
	Lookups  int64 `json:"lookups"` // asked the cache
	Misses   int64 `json:"misses"`
	// Latency counts requests by their time until the answer began.
	Latency [Buckets]int64 `json:"latency"`
}

// Gauges is how loaded a PoP is; shares of 1.
type Gauges struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
}
