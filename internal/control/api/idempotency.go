package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// Idempotency keys are kept in an organization of their own, so that a tenant's revisions are his changes.
const (
	keysOrganization = "~idempotency"
	kindKey          = "Key"
	kindKeyCount     = "Count"
	keyLife          = 24 * time.Hour
	maxKeys          = 10_000 // of an organization
	maxKeyBytes      = 128
	maxKeptAnswer    = 128 << 10
)

// kept is what is known of a request that was made under a key.
type kept struct {
	Request string       `json:"request"` // hash of method, path, query and body
	Expires time.Time    `json:"expires"`
	Answer  *secret.Body `json:"answer,omitempty"` // closed: it may hold a token; absent until it is known
}

// answer is what was answered.
type answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// try is one request under a key. The store that services write to marks the key in the transaction of the change.
type try struct {
	key     store.Key
	org     string
	request string
	marked  bool
}

type tryKey struct{}

// Marking is a store that writes the idempotency key of a request in the same transaction as what the request changes, and
// tells of each commit. All services that the API calls are made with it.
type Marking struct {
	tenant.Store
	mu      sync.Mutex
	changed chan struct{}
}

// NewMarking wraps a store.
func NewMarking(s tenant.Store) *Marking {
	return &Marking{Store: s, changed: make(chan struct{})}
}

// Update implements tenant.Store.
func (m *Marking) Update(ctx context.Context, c store.Change, fn func(*store.Tx) error) (store.Commit, error) {
	t, _ := ctx.Value(tryKey{}).(*try)
	if t == nil || t.marked {
		done, err := m.Store.Update(ctx, c, fn)
		m.told(err)
		return done, err
	}
	done, err := m.Store.Update(ctx, c, func(tx *store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return t.mark(ctx, tx)
	})
	if err == nil {
		t.marked = true
	}
	m.told(err)
	return done, err
}

func (m *Marking) told(err error) {
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

// Changed is closed at the next commit of this process.
func (m *Marking) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (t *try) mark(ctx context.Context, tx *store.Tx) error {
	b, err := json.Marshal(kept{Request: t.request, Expires: tx.Now().Add(keyLife)})
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if err := countKeys(ctx, tx, t.org, 1); err != nil {
		return err
	}
	_, err = tx.Put(ctx, t.key, b, store.Absent)
	var there *store.ConflictError
	if errors.As(err, &there) { // another control plane was asked the same, and was first
		return newProblem(http.StatusConflict, "key-in-use", "The same request is being made", "ask again, to get its answer")
	}
	return err
}

func countKeys(ctx context.Context, tx *store.Tx, org string, add int) error {
	key := store.Key{Organization: keysOrganization, Kind: kindKeyCount, Name: org}
	n := 0
	d, err := tx.Get(ctx, key)
	if err == nil {
		err = json.Unmarshal(d.Body, &n)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if n = max(n+add, 0); n > maxKeys {
		return &store.LimitError{What: "idempotency keys of an organization within 24 hours", Have: int64(n), Most: maxKeys}
	}
	_, err = tx.Put(ctx, key, fmt.Append(nil, n), store.Any)
	return err
}

// once makes a request with an Idempotency-Key happen once, whoever repeats it: the answer is given again.
func (a *API) once(w http.ResponseWriter, r *http.Request, next http.Handler) {
	key := r.Header.Get("Idempotency-Key")
	who, known := actorOf(r.Context())
	if key == "" || safe(r.Method) || !known {
		next.ServeHTTP(w, r)
		return
	}
	if len(key) > maxKeyBytes {
		a.refuse(w, r, newProblem(http.StatusBadRequest, "key", "The Idempotency-Key is too long", fmt.Sprintf("at most %d bytes are taken", maxKeyBytes)))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.refuse(w, r, bodyProblem(err))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	t := &try{org: who.Organization, request: hash(r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), string(body))}
	t.key = store.Key{Organization: keysOrganization, Kind: kindKey, Name: who.Organization + "/" + hash(who.String(), key)}
	release, err := a.turns.take(r.Context(), t.key.Name)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	defer release()
	if done, err := a.replay(w, r, t); done || err != nil {
		if err != nil {
			a.refuse(w, r, err)
		}
		return
	}
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), tryKey{}, t)))
	if t.marked {
		if err := a.keepAnswer(context.WithoutCancel(r.Context()), t, rec); err != nil {
			a.logger.Error("the answer to an idempotency key is not kept", "request", requestID(r.Context()), "err", err)
		}
	}
	rec.writeTo(w)
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// replay gives the answer of a former request under the key.
func (a *API) replay(w http.ResponseWriter, r *http.Request, t *try) (done bool, err error) {
	var k kept
	now := time.Time{}
	err = a.store.View(r.Context(), func(rd *store.Reader) error {
		now = rd.Now()
		d, err := rd.Get(r.Context(), t.key)
		if err != nil {
			return err
		}
		return json.Unmarshal(d.Body, &k)
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case !k.Expires.After(now):
		return false, a.forgetKey(r.Context(), t)
	case k.Request != t.request:
		return true, newProblem(http.StatusUnprocessableEntity, "key-reused", "The Idempotency-Key was used for another request", "use a new key for each request")
	case k.Answer == nil:
		return true, newProblem(http.StatusConflict, "answer-lost", "The request was made, and its answer is not kept", "look at what it changed; it is not made again")
	}
	plain, err := a.vault.Open(t.key, *k.Answer)
	if err != nil {
		return false, err
	}
	var was answer
	if err := json.Unmarshal(plain, &was); err != nil {
		return false, fmt.Errorf("api: %w", err)
	}
	maps.Copy(w.Header(), was.Header)
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(was.Status)
	_, _ = w.Write(was.Body)
	return true, nil
}

func (a *API) forgetKey(ctx context.Context, t *try) error {
	_, err := a.store.Update(ctx, store.Change{Author: "idempotency keys"}, func(tx *store.Tx) error {
		return errors.Join(tx.Delete(ctx, t.key, store.Any), countKeys(ctx, tx, t.org, -1))
	})
	return err
}

func (a *API) keepAnswer(ctx context.Context, t *try, rec *recorder) error {
	if rec.body.Len() > maxKeptAnswer {
		return nil
	}
	plain, err := json.Marshal(answer{rec.status, rec.header, rec.body.Bytes()})
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	closed, err := a.vault.Close(t.key, plain)
	if err != nil {
		return err
	}
	_, err = a.store.Update(ctx, store.Change{Author: "idempotency keys"}, func(tx *store.Tx) error {
		b, err := json.Marshal(kept{Request: t.request, Expires: tx.Now().Add(keyLife), Answer: &closed})
		if err != nil {
			return fmt.Errorf("api: %w", err)
		}
		_, err = tx.Put(ctx, t.key, b, store.Any)
		return err
	})
	return err
}

// SweepKeys forgets idempotency keys that are older than a day, with their history. The leader calls it now and then.
func (a *API) SweepKeys(ctx context.Context, lease *store.Lease) (gone int, err error) {
	q := store.Query{Organization: keysOrganization, Kind: kindKey, Limit: 200}
	change := store.Change{Author: "idempotency keys", Lease: lease}
	for {
		var page store.Page
		done, err := a.store.Update(ctx, change, func(tx *store.Tx) (err error) {
			if page, err = tx.List(ctx, q); err != nil {
				return err
			}
			for _, d := range page.Documents {
				var k kept
				if err := json.Unmarshal(d.Body, &k); err != nil {
					return fmt.Errorf("api: %w", err)
				}
				if k.Expires.After(tx.Now()) {
					continue
				}
				gone++
				org, _, _ := bytes.Cut([]byte(d.Name), []byte("/"))
				if err := errors.Join(tx.Delete(ctx, d.Key, store.Any), countKeys(ctx, tx, string(org), -1)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return gone, err
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			if n := done.Revisions[keysOrganization]; n > 0 && a.pruner != nil {
				return gone, a.pruner.Prune(ctx, change, keysOrganization, n)
			}
			return gone, nil
		}
	}
}

// turns lets requests with one key in one after the other.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	free chan struct{}
	n    int
}

func (t *turns) take(ctx context.Context, key string) (release func(), err error) {
	t.mu.Lock()
	mine := t.of[key]
	if mine == nil {
		mine = &turn{free: make(chan struct{}, 1)}
		t.of[key] = mine
	}
	mine.n++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.n--; mine.n == 0 {
			delete(t.of, key)
		}
	}
	select {
	case mine.free <- struct{}{}:
		return func() { <-mine.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// recorder keeps an answer until it is known to be kept.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) writeTo(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes())
}
