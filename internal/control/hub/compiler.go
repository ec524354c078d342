package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/compile"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/manifest"
)

// Wire is the form in which bundles are sent.
type Wire interface {
	// Encode writes a bundle. Before is the index of the bundle that it follows, nil for none: what did not change is the
	// same part again.
	Encode(b *bundle.Bundle, before []byte) (index []byte, parts [][]byte, err error)
	Parts(index []byte) ([]manifest.Ref, error)
}

// compiler makes bundles of what is written and proved.
type compiler struct {
	served interface {
		Served(ctx context.Context, r *store.Reader, org string) (docs []v1.Document, pending []change.Pending, err error)
	}
	wire Wire

	mu   sync.Mutex
	last map[string][]byte // indexes of organizations
}

// maxLast bounds the indexes that are remembered; one that is not costs that parts are cut anew.
const maxLast = 10_000

// Compile implements rollout.Compiler.
func (c *compiler) Compile(ctx context.Context, r *store.Reader, org string) (*rollout.Compiled, error) {
	path, err := tenant.PathOf(ctx, r, org)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // deleted, or of the control plane itself
	}
	if err != nil {
		return nil, err
	}
	docs, _, err := c.served.Served(ctx, r, org)
	if err != nil {
		return nil, err
	}
	platform := compile.Platform{Organization: path[0]}
	if org != path[0] {
		err = documents(ctx, r, store.Query{Organization: path[0], Kind: string(v1.KindListener)}, func(d *v1.Listener) { platform.Listeners = append(platform.Listeners, d) })
		if err != nil {
			return nil, err
		}
	}
	b, problems := compile.Tenant(org, docs, platform)
	if len(problems) > 0 {
		kind, m := problems[0].Document.Meta()
		return nil, &rollout.DocumentsError{Why: fmt.Sprintf("%s %s: %s %s (%d problems in all)", kind, m.Name, problems[0].Field, problems[0].What, len(problems))}
	}
	c.mu.Lock()
	before := c.last[org]
	c.mu.Unlock()
	out := &rollout.Compiled{}
	if out.Index, out.Parts, err = c.wire.Encode(b, before); err != nil {
		return nil, &rollout.DocumentsError{Why: err.Error()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || len(c.last) > maxLast {
		c.last = map[string][]byte{}
	}
	c.last[org] = out.Index
	return out, nil
}

// Parts implements rollout.Compiler.
func (c *compiler) Parts(index []byte) ([]manifest.Ref, error) { return c.wire.Parts(index) }

type secretBody = secret.Body

// sealed closes blobs at rest: bundles hold secrets of tenants.
type sealed struct{ vault vault }

type vault interface {
	Close(key store.Key, value []byte) (secretBody, error)
	Open(key store.Key, b secretBody) ([]byte, error)
}

func blobKey(d manifest.Digest) store.Key {
	return store.Key{Organization: Organization, Kind: "Blob", Name: d.String()}
}

// Close implements rollout.Sealer.
func (s sealed) Close(d manifest.Digest, data []byte) ([]byte, error) {
	b, err := s.vault.Close(blobKey(d), data)
	if err != nil {
		return nil, err
	}
	return json.Marshal(&b)
}

// Open implements rollout.Sealer.
func (s sealed) Open(d manifest.Digest, kept []byte) ([]byte, error) {
	var b secretBody
	if err := json.Unmarshal(kept, &b); err != nil {
		return nil, fmt.Errorf("%w: blob %s: %w", store.ErrDamaged, d, err)
	}
	return s.vault.Open(blobKey(d), b)
}
