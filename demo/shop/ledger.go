package shop

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// Errors of placing an order. Each is an answer to the buyer, not a fault of the shop.
var (
	// ErrEmptyBasket says that there is nothing to order.
	ErrEmptyBasket = errors.New("shop: the basket is empty")
	// ErrKeyTaken says that the idempotency key belongs to an order of another basket.
	ErrKeyTaken = errors.New("shop: this Idempotency-Key belongs to another order; use a new one")
	// ErrNoOrder says that the ledger has no such order.
	ErrNoOrder = errors.New("shop: no such order")
)

// Order is one entry of the ledger.
type Order struct {
	ID      string    `json:"id"`
	Key     string    `json:"-"` // the idempotency key under which it was placed
	Placed  time.Time `json:"placed"`
	Cluster string    `json:"cluster"` // who wrote it
	Name    string    `json:"name"`
	Email   string    `json:"email"`
	Address string    `json:"address"`
	Total   int       `json:"total"` // cents
	Lines   []line    `json:"lines,omitempty"`

	basket string
}

// buyer is what the checkout form asks for.
type buyer struct{ name, email, address string }

// placeOrder turns a basket into an order under key, exactly once: when the key is already
// in the ledger, the order that it stands for is returned and created is false. The order is
// on disk (synced) before placeOrder returns nil. Emptying the basket is part of the same
// transaction.
func (s *store) placeOrder(ctx context.Context, catalogue *Catalogue, o Order) (placed Order, created bool, err error) {
	err = transaction(ctx, s.orders, func(tx *sql.Tx) error {
		found, err := scanOrder(tx.QueryRowContext(ctx, orderColumns+` WHERE key = ?`, o.Key))
		switch {
		case err == nil:
			placed = found
			if found.basket != o.basket {
				return ErrKeyTaken
			}
			return nil
		case !errors.Is(err, ErrNoOrder):
			return err
		}
		if o.Lines, err = basketLines(ctx, tx, catalogue, o.basket); err != nil {
			return err
		}
		if len(o.Lines) == 0 {
			return ErrEmptyBasket
		}
		o.ID, o.Placed, o.Total = newOrderID(), time.Now(), total(o.Lines)
		placed, created = o, true
		return insertOrder(ctx, tx, o)
	})
	if err != nil {
		return Order{}, false, err
	}
	return placed, created, nil
}

func insertOrder(ctx context.Context, tx *sql.Tx, o Order) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO orders (id, key, basket, placed, cluster, name, email, address, total)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		o.ID, o.Key, o.basket, o.Placed.UnixNano(), o.Cluster, o.Name, o.Email, o.Address, o.Total)
	if err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	for _, l := range o.Lines {
		if _, err := tx.ExecContext(ctx, `INSERT INTO order_lines (order_id, sku, name, qty, price) VALUES (?, ?, ?, ?, ?)`,
			o.ID, l.SKU, l.Name, l.Quantity, l.Price); err != nil {
			return fmt.Errorf("write order line: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM basket_lines WHERE basket = ?`, o.basket); err != nil {
		return fmt.Errorf("empty basket: %w", err)
	}
	return nil
}

// newOrderID makes an identifier that cannot be guessed, because knowing it is what lets a
// buyer see the order.
func newOrderID() string { return "F-" + rand.Text()[:16] }

const orderColumns = `SELECT id, key, basket, placed, cluster, name, email, address, total FROM orders`

type scanner interface{ Scan(into ...any) error }

func scanOrder(row scanner) (Order, error) {
	var o Order
	var placed int64
	err := row.Scan(&o.ID, &o.Key, &o.basket, &placed, &o.Cluster, &o.Name, &o.Email, &o.Address, &o.Total)
	if errors.Is(err, sql.ErrNoRows) {
		return Order{}, ErrNoOrder
	}
	if err != nil {
		return Order{}, fmt.Errorf("shop: read order: %w", err)
	}
	o.Placed = time.Unix(0, placed)
	return o, nil
}

// order reads one order with its lines.
func (s *store) order(ctx context.Context, id string) (Order, error) {
	o, err := scanOrder(s.reads.QueryRowContext(ctx, orderColumns+` WHERE id = ?`, id))
	if err != nil {
		return Order{}, err
	}
	rows, err := s.reads.QueryContext(ctx, `SELECT sku, name, qty, price FROM order_lines WHERE order_id = ? ORDER BY sku`, id)
	if err != nil {
		return Order{}, fmt.Errorf("shop: read order: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var l line
		if err := rows.Scan(&l.SKU, &l.Name, &l.Quantity, &l.Price); err != nil {
			return Order{}, fmt.Errorf("shop: read order: %w", err)
		}
		o.Lines = append(o.Lines, l)
	}
	return o, rows.Err()
}

// Ledger reads the orders of a data directory, for tests, drills and audits. It may be open
// while shops write. It is safe for concurrent use; close it after use.
type Ledger struct{ db *sql.DB }

// OpenLedger opens the ledger of the shop that keeps its data in dir, read-only. It is an
// error when no shop ever ran there.
func OpenLedger(dir string) (*Ledger, error) {
	if _, err := os.Stat(filepath.Join(dir, ledgerFile)); err != nil {
		return nil, fmt.Errorf("shop: no ledger in %q: %w (start a shop with this data directory first)", dir, err)
	}
	db, err := openPool(dir, "", true, 2)
	if err != nil {
		return nil, err
	}
	return &Ledger{db: db}, nil
}

// Close frees the reader.
func (l *Ledger) Close() error { return l.db.Close() }

// Count returns the number of orders.
func (l *Ledger) Count(ctx context.Context) (int, error) {
	var n int
	if err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM orders`).Scan(&n); err != nil {
		return 0, fmt.Errorf("shop: count orders: %w", err)
	}
	return n, nil
}

// Orders yields every order in the order of writing, without lines. An error ends it.
func (l *Ledger) Orders(ctx context.Context) iter.Seq2[Order, error] {
	return func(yield func(Order, error) bool) {
		rows, err := l.db.QueryContext(ctx, orderColumns+` ORDER BY seq`)
		if err != nil {
			yield(Order{}, fmt.Errorf("shop: read orders: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			o, err := scanOrder(rows)
			if !yield(o, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Order{}, fmt.Errorf("shop: read orders: %w", err))
		}
	}
}

// ByKey returns every order under one idempotency key. More than one would be a duplicate;
// none and no error means that no such order was written.
func (l *Ledger) ByKey(ctx context.Context, key string) ([]Order, error) {
	rows, err := l.db.QueryContext(ctx, orderColumns+` WHERE key = ? ORDER BY seq`, key)
	if err != nil {
		return nil, fmt.Errorf("shop: read orders: %w", err)
	}
	defer rows.Close()
	var found []Order
	for rows.Next() {
		o, err := scanOrder(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, o)
	}
	return found, rows.Err()
}

// EachOrder calls visit with the id, idempotency key and time of every order, in the order
// of writing, and stops at its first error. It uses only basic types so that a checker
// need not know this package.
func (l *Ledger) EachOrder(ctx context.Context, visit func(id, key string, placed time.Time) error) error {
	for o, err := range l.Orders(ctx) {
		if err != nil {
			return err
		}
		if err := visit(o.ID, o.Key, o.Placed); err != nil {
			return err
		}
	}
	return nil
}
