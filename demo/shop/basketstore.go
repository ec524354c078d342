package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Limits of one basket.
const (
	maxLines    = 50
	maxQuantity = 99
)

// errBasketFull says that a basket has its greatest number of different products.
var errBasketFull = errors.New("the basket is full: remove something first")

// line is one product in a basket or an order.
type line struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Quantity int    `json:"quantity"`
	Price    int    `json:"price"` // cents apiece
}

// Total is the price of the whole line in cents.
func (l line) Total() int { return l.Quantity * l.Price }

func total(lines []line) int {
	sum := 0
	for _, l := range lines {
		sum += l.Total()
	}
	return sum
}

type rower interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// basketLines reads a basket in the order in which things were added. Things that the
// catalogue no longer has are left out.
func basketLines(ctx context.Context, from rower, catalogue *Catalogue, basket string) ([]line, error) {
	rows, err := from.QueryContext(ctx, `SELECT sku, qty FROM basket_lines WHERE basket = ? ORDER BY added, sku`, basket)
	if err != nil {
		return nil, fmt.Errorf("read basket: %w", err)
	}
	defer rows.Close()
	var lines []line
	for rows.Next() {
		var l line
		if err := rows.Scan(&l.SKU, &l.Quantity); err != nil {
			return nil, fmt.Errorf("read basket: %w", err)
		}
		if p := catalogue.Product(l.SKU); p != nil {
			l.Name, l.Price = p.Name, p.Price
			lines = append(lines, l)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read basket: %w", err)
	}
	return lines, nil
}

// change is one edit of a basket.
type change struct {
	sku      string
	quantity int
	add      bool // add to what is there; otherwise set, and 0 removes
}

// changeBasket applies one edit. It makes the basket when it is missing.
func (s *store) changeBasket(ctx context.Context, basket string, c change) error {
	return transaction(ctx, s.baskets, func(tx *sql.Tx) error {
		now := time.Now().UnixNano()
		if _, err := tx.ExecContext(ctx, `INSERT INTO baskets (id, updated) VALUES (?, ?)
			ON CONFLICT (id) DO UPDATE SET updated = excluded.updated`, basket, now); err != nil {
			return fmt.Errorf("touch basket: %w", err)
		}
		if !c.add && c.quantity <= 0 {
			if _, err := tx.ExecContext(ctx, `DELETE FROM basket_lines WHERE basket = ? AND sku = ?`, basket, c.sku); err != nil {
				return fmt.Errorf("remove from basket: %w", err)
			}
			return nil
		}
		var others int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM basket_lines WHERE basket = ? AND sku <> ?`,
			basket, c.sku).Scan(&others); err != nil {
			return fmt.Errorf("count basket: %w", err)
		}
		if others >= maxLines {
			return errBasketFull
		}
		merge := `excluded.qty`
		if c.add {
			merge = `min(basket_lines.qty + excluded.qty, ?5)`
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO basket_lines (basket, sku, qty, added) VALUES (?1, ?2, min(?3, ?5), ?4)
			ON CONFLICT (basket, sku) DO UPDATE SET qty = `+merge, basket, c.sku, c.quantity, now, maxQuantity); err != nil {
			return fmt.Errorf("write basket: %w", err)
		}
		return nil
	})
}

// sweepBaskets deletes baskets that nobody touched since before, and the oldest ones beyond
// keep. It returns how many went. Both clusters may sweep.
func (s *store) sweepBaskets(ctx context.Context, before time.Time, keep int) (int64, error) {
	var gone int64
	err := transaction(ctx, s.baskets, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM baskets WHERE updated < ?1 OR id IN
			(SELECT id FROM baskets ORDER BY updated DESC LIMIT -1 OFFSET ?2)`, before.UnixNano(), keep)
		if err != nil {
			return fmt.Errorf("sweep baskets: %w", err)
		}
		if gone, err = result.RowsAffected(); err != nil || gone == 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM basket_lines WHERE basket NOT IN (SELECT id FROM baskets)`)
		return err
	})
	return gone, err
}
