package fleet

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"

	"github.com/relais-edge/relais/internal/control/rollout"
	"github.com/relais-edge/relais/internal/control/store"
)

// status is the operator's rollout in words, once nothing of it moves.
func status(ctx context.Context, r *store.Reader) (string, error) {
	s, err := rollout.Of(ctx, r, "acme")
	if err != nil || s.Waiting == nil && s.Moving == nil && s.Stable.Revision == 0 {
		return "", err
	}
	b, err := json.Marshal(map[string]any{"acme": s})
	return string(b), err
}

// gunzip reads all of a stream.
func gunzip(r io.Reader) (string, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(z)
	return string(b), err
}

// holds says whether a text stands in another, or in base64 within it, wherever that begins.
func holds(all, text string) bool {
	if strings.Contains(all, text) {
		return true
	}
	for before := range 3 {
		b := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + text))
		if strings.Contains(all, b[4:len(b)-4]) {
			return true
		}
	}
	return false
}
