package rollout

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/manifest"
)

// Schema is what this room keeps in the store's database: what PoPs shall serve, apart from what tenants want.
func Schema() store.Schema {
	return store.Schema{
		Name: "rollout",
		Steps: [][]string{{
			"CREATE TABLE rollout_fleet (one BIGINT PRIMARY KEY, epoch BIGINT NOT NULL, revision BIGINT NOT NULL)",
			"CREATE TABLE rollout_states (organization {text} PRIMARY KEY, body {bytes} NOT NULL)",
			"CREATE TABLE rollout_blobs (digest {text} PRIMARY KEY, created BIGINT NOT NULL, body {bytes} NOT NULL)",
			"CREATE TABLE rollout_pops (pop {text} PRIMARY KEY, seen BIGINT NOT NULL, body {bytes} NOT NULL)",
		}},
		Tables: []store.Table{
			{Name: "rollout_fleet", Columns: []string{"one", "epoch", "revision"}, Types: "iii", Key: "one"},
			{Name: "rollout_states", Columns: []string{"organization", "body"}, Types: "tb", Key: "organization"},
			{Name: "rollout_blobs", Columns: []string{"digest", "created", "body"}, Types: "tib", Key: "digest"},
			{Name: "rollout_pops", Columns: []string{"pop", "seen", "body"}, Types: "tib", Key: "pop"},
		},
	}
}

// MaxBlob bounds a blob, in bytes.
const MaxBlob = 16 << 20

// position of the fleet: that of the newest manifests.
func position(ctx context.Context, r *store.Reader) (manifest.Position, error) {
	list, err := store.Rows(ctx, r, "read the fleet", func(rows *sql.Rows) (p manifest.Position, err error) {
		return p, rows.Scan(&p.Epoch, &p.Revision)
	}, "SELECT epoch, revision FROM rollout_fleet WHERE one = 1")
	if err != nil || len(list) == 0 {
		return manifest.Position{Epoch: 1}, err // nothing was rolled out yet
	}
	return list[0], nil
}

func setPosition(ctx context.Context, tx *store.Tx, p manifest.Position) error {
	_, err := tx.Exec(ctx, "write the fleet", "INSERT INTO rollout_fleet (one, epoch, revision) VALUES (1, $1, $2) ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision", int64(p.Epoch), int64(p.Revision))
	return err
}

// states of all organizations.
func states(ctx context.Context, r *store.Reader) (map[string]*State, error) {
	type row struct {
		org  string
		body []byte
	}
	rows, err := store.Rows(ctx, r, "read the rollouts", func(rows *sql.Rows) (x row, err error) {
		return x, rows.Scan(&x.org, &x.body)
	}, "SELECT organization, body FROM rollout_states")
	if err != nil {
		return nil, err
	}
	all := make(map[string]*State, len(rows))
	for _, x := range rows {
		s, err := readState(x.org, x.body)
		if err != nil {
			return nil, err
		}
		all[x.org] = s
	}
	return all, nil
}

// stateOf reads one organization's; one without any has the zero State.
func stateOf(ctx context.Context, r *store.Reader, org string) (*State, error) {
	list, err := store.Rows(ctx, r, "read a rollout", func(rows *sql.Rows) (b []byte, err error) {
		return b, rows.Scan(&b)
	}, "SELECT body FROM rollout_states WHERE organization = $1", org)
	if err != nil || len(list) == 0 {
		return &State{}, err
	}
	return readState(org, list[0])
}

func readState(org string, body []byte) (*State, error) {
	s := &State{}
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("%w: rollout of %s: %w", store.ErrDamaged, org, err)
	}
	return s, nil
}

func setState(ctx context.Context, tx *store.Tx, org string, s *State) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "write a rollout", "INSERT INTO rollout_states (organization, body) VALUES ($1, $2) ON CONFLICT (organization) DO UPDATE SET body = excluded.body", org, body)
	return err
}

// putBlob keeps a blob; one that is there is made young, so that it is not swept before it is named.
func putBlob(ctx context.Context, tx *store.Tx, d manifest.Digest, kept []byte) error {
	_, err := tx.Exec(ctx, "keep a blob", "INSERT INTO rollout_blobs (digest, created, body) VALUES ($1, $2, $3) ON CONFLICT (digest) DO UPDATE SET created = excluded.created",
		d.String(), tx.Now().UnixMicro(), kept)
	return err
}

// ErrNoBlob: there is no such blob.
var ErrNoBlob = errors.New("rollout: there is no such blob")

// blob reads a blob as it is kept, or ErrNoBlob.
func blob(ctx context.Context, r *store.Reader, d manifest.Digest) ([]byte, error) {
	list, err := store.Rows(ctx, r, "read a blob", func(rows *sql.Rows) (b []byte, err error) {
		return b, rows.Scan(&b)
	}, "SELECT body FROM rollout_blobs WHERE digest = $1", d.String())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNoBlob
	}
	return list[0], nil
}

// seal makes blobs ready to be kept, before the writers' lock is taken.
func (c *Conductor) seal(blobs [][]byte) (map[manifest.Digest][]byte, error) {
	kept := make(map[manifest.Digest][]byte, len(blobs))
	for _, b := range blobs {
		d := manifest.Of(b)
		if len(b) > MaxBlob {
			return nil, &store.LimitError{What: "bytes of a blob", Have: int64(len(b)), Most: MaxBlob}
		}
		kept[d] = b
		if c.cfg.Sealer != nil {
			closed, err := c.cfg.Sealer.Close(d, b)
			if err != nil {
				return nil, err
			}
			kept[d] = closed
		}
	}
	return kept, nil
}

// opened are blobs that were asked for of late: many PoPs ask for the same, piece by piece.
type opened struct {
	mu    sync.Mutex
	blobs map[manifest.Digest][]byte
	bytes int
}

// read gives a blob whole.
func (c *Conductor) read(ctx context.Context, d manifest.Digest) ([]byte, error) {
	o := &c.opened
	o.mu.Lock()
	b, known := o.blobs[d]
	o.mu.Unlock()
	if known {
		return b, nil
	}
	var kept []byte
	err := c.cfg.Store.View(ctx, func(r *store.Reader) (err error) {
		kept, err = blob(ctx, r, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	if b = kept; c.cfg.Sealer != nil {
		if b, err = c.cfg.Sealer.Open(d, kept); err != nil {
			return nil, err
		}
	}
	if manifest.Of(b) != d {
		return nil, fmt.Errorf("%w: blob %s", store.ErrDamaged, d)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.blobs == nil || o.bytes > recent {
		o.blobs, o.bytes = map[manifest.Digest][]byte{}, 0
	}
	if _, known := o.blobs[d]; !known {
		o.blobs[d] = b
		o.bytes += len(b)
	}
	return b, nil
}

// sweepBlobs removes what no rollout names and is older than a time.
func sweepBlobs(ctx context.Context, tx *store.Tx, named map[manifest.Digest]bool, before time.Time) (gone int, err error) {
	old, err := store.Rows(ctx, &tx.Reader, "list old blobs", func(rows *sql.Rows) (d manifest.Digest, err error) {
		var text string
		if err := rows.Scan(&text); err != nil {
			return d, err
		}
		return d, d.UnmarshalText([]byte(text))
	}, "SELECT digest FROM rollout_blobs WHERE created < $1", before.UnixMicro())
	if err != nil {
		return 0, err
	}
	for _, d := range old {
		if named[d] {
			continue
		}
		if _, err := tx.Exec(ctx, "remove a blob", "DELETE FROM rollout_blobs WHERE digest = $1", d.String()); err != nil {
			return gone, err
		}
		gone++
	}
	return gone, nil
}
