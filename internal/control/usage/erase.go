package usage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
)

// What stands for an organization that was erased. No organization of a tenant begins with a tilde.
const (
	erasedPrefix = "~erased-"
	erasedSite   = "erased"
)

// ErrOpen says that use has no receipt yet, so that erasing it would lose a bill.
var ErrOpen = errors.New("there is use without a receipt; erase after the next days are closed")

// Erase takes an organization that was deleted out of the books, by who managed it. Its use stays as sums by hour and PoP under
// a name that is nobody's, because the operator's costs and totals are made of it. Its receipts go; where keep is set, because
// the law wants bills kept, their sums by site and hour go, and what is left of each is the organization's name, day, totals, hash and
// signature, which still verify. What comes late from a PoP is counted under the same pseudonym.
func (s *Service) Erase(ctx context.Context, actor tenant.Actor, org string, keep bool) error {
	o := tenant.Organization{}
	err := s.store.View(ctx, func(r *store.Reader) (err error) {
		o, err = organizationOf(ctx, r, org)
		return err
	})
	if err != nil {
		return err
	}
	if !o.Deleted || o.Parent() == "" {
		return fmt.Errorf("%w: %s; delete the organization first", tenant.ErrInUse, org)
	}
	// The audit log of the parent names the organization, as it did when it was made and deleted.
	return s.change(ctx, actor, o.Parent(), "usage.erase", org, map[string]bool{"keptReceipts": keep}, func(tx *store.Tx) error {
		if err := s.tenants.Authorize(ctx, &tx.Reader, actor, tenant.Access{Verb: tenant.VerbWrite, Kind: tenant.KindOrganization, Organization: o.Parent()}); err != nil {
			return err
		}
		open, err := store.Rows(ctx, &tx.Reader, "look for use without a receipt", scanInt, "SELECT count(*) FROM usage_open WHERE organization = $1", org)
		if err != nil {
			return err
		}
		if open[0] > 0 {
			return fmt.Errorf("%w: %d lines of %s", ErrOpen, open[0], org)
		}
		return eraseRows(ctx, tx, org, keep)
	})
}

func eraseRows(ctx context.Context, tx *store.Tx, org string, keep bool) error {
	pseudonym := erasedPrefix + strings.ToLower(rand.Text()[:16])
	for _, t := range []struct{ table, at string }{{"usage_hours", "hour"}, {"usage_days", "day"}} {
		_, err := tx.Exec(ctx, "sum up without names", "INSERT INTO "+t.table+" (organization, site, pop, "+t.at+", "+join(counters())+
			") SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), pop, "+t.at+", "+sumColumns()+" FROM "+t.table+" WHERE organization = $3 GROUP BY pop, "+t.at, pseudonym, erasedSite, org)
		if err != nil {
			return err
		}
	}
	for _, t := range []string{"hours", "days", "months", "told"} {
		if _, err := tx.Exec(ctx, "erase", "DELETE FROM usage_"+t+" WHERE organization = $1", org); err != nil {
			return err
		}
	}
	if err := eraseReceipts(ctx, tx, org, keep); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "note who was erased", "INSERT INTO usage_erased (digest, pseudonym, time) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING", digest(org), pseudonym, tx.Now().UnixMicro())
	return err
}

func eraseReceipts(ctx context.Context, tx *store.Tx, org string, keep bool) error {
	if !keep {
		_, err := tx.Exec(ctx, "erase receipts", "DELETE FROM usage_receipts WHERE organization = $1", org)
		return err
	}
	for after := int64(0); ; {
		list, err := receiptBodies(ctx, &tx.Reader, org, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, body := range list {
			var r usage.Receipt
			if err := json.Unmarshal(body, &r); err != nil {
				return fmt.Errorf("usage: a receipt of %s is damaged: %w", org, err)
			}
			r.Erase()
			if body, err = json.Marshal(&r); err != nil {
				return fmt.Errorf("usage: %w", err)
			}
			if _, err := tx.Exec(ctx, "erase a receipt's sums", "UPDATE usage_receipts SET body = $1 WHERE organization = $2 AND number = $3", body, org, r.Number); err != nil {
				return err
			}
			after = r.Number
		}
	}
}
