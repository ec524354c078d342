package purge

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/fleet"
)

// Schema is what this room keeps in the store's database. Two of the tables are in no backup: who restores one begins a new
// epoch, and counts anew.
func Schema() store.Schema {
	return store.Schema{
		Name: "purge",
		Steps: [][]string{{
			"CREATE TABLE purge_head (one BIGINT PRIMARY KEY, epoch BIGINT NOT NULL, began BIGINT NOT NULL, number BIGINT NOT NULL)",
			"CREATE TABLE purge_log (number BIGINT PRIMARY KEY, epoch BIGINT NOT NULL, organization {text} NOT NULL, author {text} NOT NULL, time BIGINT NOT NULL, entry {bytes} NOT NULL)",
			"CREATE TABLE purge_acks (pop {text} PRIMARY KEY, epoch BIGINT NOT NULL, number BIGINT NOT NULL, time BIGINT NOT NULL, seen BIGINT NOT NULL)",
			"CREATE TABLE IF NOT EXISTS purge_life (one BIGINT PRIMARY KEY, epoch BIGINT NOT NULL)",
			"CREATE TABLE IF NOT EXISTS purge_rates (organization {text} PRIMARY KEY, minute BIGINT NOT NULL, entries BIGINT NOT NULL)",
		}},
		Tables: []store.Table{
			{Name: "purge_head", Columns: []string{"one", "epoch", "began", "number"}, Types: "iiii", Key: "one"},
			{Name: "purge_log", Columns: []string{"number", "epoch", "organization", "author", "time", "entry"}, Types: "iittib", Key: "number"},
			{Name: "purge_acks", Columns: []string{"pop", "epoch", "number", "time", "seen"}, Types: "tiiii", Key: "pop"},
		},
	}
}

// head is where the log stands. Numbers go on over epochs; an epoch begins after the number began.
type head struct{ epoch, began, number uint64 }

func (h head) position() fleet.PurgePosition {
	return fleet.PurgePosition{Epoch: h.epoch, Number: h.number}
}

// readHead reads it; alive is false where this very database never gave a number: it is new, or was restored.
func readHead(ctx context.Context, r *store.Reader) (h head, alive bool, err error) {
	type row struct {
		head
		life sql.NullInt64
	}
	list, err := store.Rows(ctx, r, "read where purges stand", func(rows *sql.Rows) (x row, err error) {
		return x, rows.Scan(&x.epoch, &x.began, &x.number, &x.life)
	}, "SELECT epoch, began, number, (SELECT epoch FROM purge_life WHERE one = 1) FROM purge_head WHERE one = 1")
	if err != nil || len(list) == 0 {
		return head{}, false, err
	}
	return list[0].head, list[0].life.Valid && uint64(list[0].life.Int64) == list[0].epoch, nil
}

// takeHead reads where the log stands, for who writes, and begins an epoch where this database has none.
func takeHead(ctx context.Context, tx *store.Tx) (head, error) {
	h, alive, err := readHead(ctx, &tx.Reader)
	if err != nil || alive {
		return h, err
	}
	return beginEpoch(ctx, tx, h)
}

// beginEpoch puts an epoch after all that a PoP can know of. It is named by its time, so that also one who lost everything
// names none that was there before.
func beginEpoch(ctx context.Context, tx *store.Tx, h head) (head, error) {
	h.epoch = max(h.epoch+1, uint64(max(tx.Now().Unix(), 1)))
	h.began = h.number
	if err := writeHead(ctx, tx, h); err != nil {
		return h, err
	}
	_, err := tx.Exec(ctx, "begin an epoch of purges", "INSERT INTO purge_life (one, epoch) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch", int64(h.epoch))
	return h, err
}

func writeHead(ctx context.Context, tx *store.Tx, h head) error {
	_, err := tx.Exec(ctx, "write where purges stand", `INSERT INTO purge_head (one, epoch, began, number) VALUES (1, $1, $2, $3)
ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, began = excluded.began, number = excluded.number`, int64(h.epoch), int64(h.began), int64(h.number))
	return err
}

// rowsAtOnce is how many entries one statement writes: each is a round trip to PostgreSQL.
const rowsAtOnce = 100

// row is an entry as it is in the log.
type row struct {
	number, epoch        uint64
	organization, author string
	time                 time.Time
	entry                []byte
}

func writeRows(ctx context.Context, tx *store.Tx, rows []row) error {
	for len(rows) > 0 {
		n := min(len(rows), rowsAtOnce)
		var text strings.Builder
		text.WriteString("INSERT INTO purge_log (number, epoch, organization, author, time, entry) VALUES ")
		args := make([]any, 0, 6*n)
		for i := range rows[:n] {
			x := &rows[i]
			if i > 0 {
				text.WriteString(", ")
			}
			fmt.Fprintf(&text, "($%d, $%d, $%d, $%d, $%d, $%d)", 6*i+1, 6*i+2, 6*i+3, 6*i+4, 6*i+5, 6*i+6)
			args = append(args, int64(x.number), int64(x.epoch), x.organization, x.author, x.time.UnixMicro(), x.entry)
		}
		if _, err := tx.Exec(ctx, "write purges", text.String(), args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func scanRow(rows *sql.Rows) (x row, err error) {
	var us int64
	err = rows.Scan(&x.number, &x.epoch, &x.organization, &x.author, &us, &x.entry)
	x.time = time.UnixMicro(us).UTC()
	return x, err
}

const columns = "SELECT number, epoch, organization, author, time, entry FROM purge_log "

func rowsAfter(ctx context.Context, r *store.Reader, number uint64, limit int) ([]row, error) {
	return store.Rows(ctx, r, "read purges", scanRow, columns+"WHERE number > $1 ORDER BY number LIMIT $2", int64(number), limit)
}

// spend counts entries of an organization, in the minute of the change, and says whether there is room for them.
func spend(ctx context.Context, tx *store.Tx, organization string, entries, most int) (bool, error) {
	minute := tx.Now().Unix() / 60
	had, err := store.Rows(ctx, &tx.Reader, "read the rate of purges", func(rows *sql.Rows) (n int64, err error) {
		return n, rows.Scan(&n)
	}, "SELECT entries FROM purge_rates WHERE organization = $1 AND minute = $2", organization, minute)
	if err != nil {
		return false, err
	}
	n := int64(entries)
	if len(had) > 0 {
		n += had[0]
	}
	if n > int64(most) {
		return false, nil
	}
	_, err = tx.Exec(ctx, "count purges", `INSERT INTO purge_rates (organization, minute, entries) VALUES ($1, $2, $3)
ON CONFLICT (organization) DO UPDATE SET minute = excluded.minute, entries = excluded.entries`, organization, minute, n)
	return true, err
}

// trimRows is how many entries one change removes at most, so that it keeps nobody waiting for long.
const trimRows = 5000

// trim removes entries that are older than a time, or beyond keep of the newest, and says how many.
func trim(ctx context.Context, tx *store.Tx, before time.Time, keep int64) (gone int64, err error) {
	h, _, err := readHead(ctx, &tx.Reader)
	if err != nil {
		return 0, err
	}
	upTo, err := store.Rows(ctx, &tx.Reader, "look for old purges", func(rows *sql.Rows) (n int64, err error) {
		return n, rows.Scan(&n)
	}, "SELECT coalesce(max(number), 0) FROM (SELECT number, time FROM purge_log ORDER BY number LIMIT $1) AS oldest WHERE time < $2 OR number <= $3",
		trimRows, before.UnixMicro(), int64(h.number)-keep)
	if err != nil || len(upTo) == 0 || upTo[0] == 0 {
		return 0, err
	}
	return tx.Exec(ctx, "trim purges", "DELETE FROM purge_log WHERE number <= $1", upTo[0])
}

// forgetRates removes the counts of minutes that are over.
func forgetRates(ctx context.Context, tx *store.Tx) error {
	_, err := tx.Exec(ctx, "forget rates of purges", "DELETE FROM purge_rates WHERE minute < $1", tx.Now().Unix()/60)
	return err
}

// ack is what a PoP obeys, and when it was heard of.
type ack struct {
	pop        string
	at         fleet.PurgePosition
	time, seen time.Time
}

func readAcks(ctx context.Context, r *store.Reader) ([]ack, error) {
	return store.Rows(ctx, r, "read acknowledgements", func(rows *sql.Rows) (a ack, err error) {
		var us, seen int64
		err = rows.Scan(&a.pop, &a.at.Epoch, &a.at.Number, &us, &seen)
		a.time, a.seen = time.UnixMicro(us).UTC(), time.UnixMicro(seen).UTC()
		return a, err
	}, "SELECT pop, epoch, number, time, seen FROM purge_acks ORDER BY seen DESC LIMIT $1", MaxPops)
}

func writeAck(ctx context.Context, tx *store.Tx, a ack) error {
	_, err := tx.Exec(ctx, "write an acknowledgement", `INSERT INTO purge_acks (pop, epoch, number, time, seen) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (pop) DO UPDATE SET epoch = excluded.epoch, number = excluded.number, time = excluded.time, seen = excluded.seen`,
		a.pop, int64(a.at.Epoch), int64(a.at.Number), a.time.UnixMicro(), a.seen.UnixMicro())
	return err
}

func forgetAcks(ctx context.Context, tx *store.Tx, before time.Time) error {
	_, err := tx.Exec(ctx, "forget PoPs", "DELETE FROM purge_acks WHERE seen < $1", before.UnixMicro())
	return err
}

// message is an entry as it is sent.
func (x *row) message() ([]byte, error) {
	return json.Marshal(&fleet.Purge{PurgePosition: fleet.PurgePosition{Epoch: x.epoch, Number: x.number}, Entry: x.entry})
}
