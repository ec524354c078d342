package pop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/bus"
	"github.com/relais-edge/relais/internal/fleet"
	"github.com/relais-edge/relais/internal/manifest"
)

// Bounds of what is taken over.
const (
	maxTenants = 1_000_000
	// MaxBlob bounds a blob, MaxBundle a tenant's bundle, in bytes.
	MaxBlob   = 16 << 20
	MaxBundle = 1 << 30
	// maxParts of a bundle.
	maxParts = 1 << 16
	// tenantsAtOnce and partsAtOnce are asked for side by side: a fresh PoP far away has much to ask for.
	tenantsAtOnce = 8
	partsAtOnce   = 4
	// patience is how long an answer is waited for, tries how often it is asked for.
	patience = 5 * time.Second
	tries    = 5
	// beatPatience is how long that to a heartbeat is: while nobody leads, control planes hear without answering, and a PoP whose
	// next heartbeat waited for long would count as away.
	beatPatience = 2 * time.Second
	// giveUp is how long a state that did not survive two starts is left alone.
	giveUp = 5 * time.Minute
)

func readHead(data []byte) (*fleet.Head, error) {
	h := &fleet.Head{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrForm, err)
	}
	return h, nil
}

// take puts the manifest of a head in service. An error is for the next heartbeat; the state is then what it was.
func (a *Agent) take(ctx context.Context, in *fleet.Head) error {
	a.work.Lock()
	defer a.work.Unlock()
	a.mu.Lock()
	keys, current := a.keys, a.current
	a.mu.Unlock()
	if a.pinned() != "" {
		return nil
	}
	if current == nil {
		current = &state{table: manifest.NewTable(nil)}
	}
	head, err := keys.Open(&in.Signed, a.cfg.Pop, current.head.Position, time.Now())
	if errors.Is(err, manifest.ErrOlder) && a.same(&in.Signed, current) {
		return nil // came twice
	}
	if err != nil {
		a.refuse("", err)
		return nil
	}
	if err := a.try(head.Position); err != nil {
		return err
	}
	if head.Tenants < 0 || head.Tenants > maxTenants {
		a.refuse("", fmt.Errorf("%w: %d tenants", manifest.ErrForm, head.Tenants))
		return nil
	}
	table, err := a.table(ctx, in, head, current.table)
	if err != nil {
		return err
	}
	next := &state{Signed: in.Signed, Tenants: table.Tenants(), Held: map[string]held{}, head: *head, table: table}
	changed, err := a.collect(ctx, in.Blobs, current, next)
	if err != nil {
		return err
	}
	return a.serve(ctx, current, next, changed)
}

// try notes that a state is about to be read and served: what ends the process in that is counted, at the next start or
// when the state is offered again.
func (a *Agent) try(p manifest.Position) error {
	t := a.disk.trial()
	if t.Refused == p && time.Now().Before(t.Again) {
		return fmt.Errorf("manifest %d.%d did not survive two starts; it is tried again at %s", p.Epoch, p.Revision, t.Again.Format(time.RFC3339))
	}
	if t.Position == p && t.Process != a.started.UnixNano() {
		if t.Starts++; t.Starts > 1 {
			a.giveUp(&t, p)
			_ = a.disk.setTrial(t)
			return fmt.Errorf("manifest %d.%d did not survive two starts", p.Epoch, p.Revision)
		}
	} else if t.Position != p {
		t.Position, t.Starts = p, 0
	}
	t.Process = a.started.UnixNano()
	if err := a.disk.setTrial(t); err != nil {
		a.trouble(fmt.Errorf("what is served cannot be kept on the disk: %w", err))
	}
	return nil
}

// same says whether a head is the one in service.
func (a *Agent) same(s *manifest.Signed, current *state) bool {
	var h manifest.Head
	return json.Unmarshal(s.Head, &h) == nil && h.Position == current.head.Position && h.Table == current.head.Table
}

// table finds the table of a head: the delta leads to it, or it is asked for.
func (a *Agent) table(ctx context.Context, in *fleet.Head, head *manifest.Head, from *manifest.Table) (*manifest.Table, error) {
	if from.Digest() == head.Table {
		return from, nil
	}
	if in.Delta != nil {
		if t, err := from.Apply(in.Delta); err == nil && t.Digest() == head.Table {
			return t, nil
		}
	}
	var list []manifest.Tenant
	for after := ""; ; {
		var answer fleet.TableAnswer
		if err := a.ask(ctx, bus.Table, &fleet.TableRequest{Table: head.Table, After: after}, func(data []byte) error { return json.Unmarshal(data, &answer) }); err != nil {
			return nil, fmt.Errorf("the table of tenants: %w", err)
		}
		if answer.Gone || len(list)+len(answer.Tenants) > head.Tenants {
			return nil, errors.New("the table of tenants is another by now")
		}
		list = append(list, answer.Tenants...)
		if !answer.More || len(answer.Tenants) == 0 {
			break
		}
		after = list[len(list)-1].Organization
	}
	t := manifest.NewTable(list)
	if t.Digest() != head.Table {
		return nil, errors.New("the table of tenants is not the one that is signed")
	}
	return t, nil
}

// collect reads the bundles that change from one state to the next. A bundle that cannot be read is held: what was served
// of its tenant stays. One that cannot be had ends the attempt.
func (a *Agent) collect(ctx context.Context, inline [][]byte, from, to *state) (map[string]*bundle.Bundle, error) {
	at := make(map[manifest.Digest][]byte, len(inline))
	for _, b := range inline {
		at[manifest.Of(b)] = b
	}
	changed := map[string]*bundle.Bundle{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(tenantsAtOnce)
	for _, t := range to.Tenants {
		was, served := from.serves(t.Organization)
		if h, is := from.Held[t.Organization]; is && h.Refused == t.Index.Digest {
			mu.Lock()
			to.Held[t.Organization] = h // it was looked at
			mu.Unlock()
			continue
		}
		if served && was.Index == t.Index {
			continue
		}
		g.Go(func() error {
			b, err := a.bundle(gctx, &t, at)
			var bad *badError
			if err != nil && !errors.As(err, &bad) {
				return fmt.Errorf("bundle of %s: %w", t.Organization, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if bad != nil {
				to.Held[t.Organization] = a.hold(&t, was, served, bad.why)
			} else {
				changed[t.Organization] = b
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, t := range from.Tenants {
		if _, there := to.table.Find(t.Organization); !there {
			changed[t.Organization] = nil
		}
	}
	return changed, nil
}

// hold keeps a tenant where it is.
func (a *Agent) hold(t *manifest.Tenant, was manifest.Tenant, served bool, why string) held {
	if !served {
		was = manifest.Tenant{Organization: t.Organization}
	}
	a.metrics.refused.Add(1)
	a.cfg.Logger.Error("a bundle is refused; what was served of this tenant is still served", "organization", t.Organization, "revision", t.Revision, "why", why)
	a.report(fleet.Report{Kind: fleet.ReportRefused, Organization: t.Organization, Text: why})
	return held{Tenant: was, Refused: t.Index.Digest, Why: cut(why)}
}

// badError says that a bundle is wrong in itself: asking again does not help.
type badError struct{ why string }

func (e *badError) Error() string { return e.why }

// bundle reads a tenant's bundle.
func (a *Agent) bundle(ctx context.Context, t *manifest.Tenant, at map[manifest.Digest][]byte) (*bundle.Bundle, error) {
	index, err := a.blob(ctx, t.Index, at)
	if err != nil {
		return nil, err
	}
	refs, err := a.cfg.Loader.Parts(index)
	if err != nil {
		return nil, &badError{err.Error()}
	}
	total := int64(0)
	for _, r := range refs {
		total += r.Size
	}
	if len(refs) > maxParts || total > MaxBundle {
		return nil, &badError{fmt.Sprintf("the bundle has %d parts and %d bytes; %d and %d are the most", len(refs), total, maxParts, MaxBundle)}
	}
	parts := make([][]byte, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for i, r := range refs {
		g.Go(func() (err error) {
			parts[i], err = a.blob(gctx, r, at)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	b, err := decode(a.cfg.Loader, t.Organization, index, parts)
	if err != nil {
		return nil, &badError{err.Error()}
	}
	return b, nil
}

// decode reads a bundle; a panic is its fault and nobody else's.
func decode(l Loader, org string, index []byte, parts [][]byte) (b *bundle.Bundle, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic while it was read: %v\n%s", r, debug.Stack())
		}
	}()
	return l.Decode(org, index, parts)
}

// blob finds a blob: with the head, on the disk, or at the control plane, piece by piece.
func (a *Agent) blob(ctx context.Context, ref manifest.Ref, at map[manifest.Digest][]byte) ([]byte, error) {
	if ref.Size < 0 || ref.Size > MaxBlob {
		return nil, &badError{fmt.Sprintf("a blob has %d bytes; %d are the most", ref.Size, MaxBlob)}
	}
	if b := at[ref.Digest]; b != nil {
		return b, a.keepBlob(b)
	}
	if b := a.disk.blob(ref); b != nil {
		return b, nil
	}
	b := make([]byte, 0, ref.Size)
	for int64(len(b)) < ref.Size {
		var piece []byte
		err := a.ask(ctx, bus.Blob, &fleet.BlobRequest{Digest: ref.Digest, Offset: int64(len(b))}, func(data []byte) (err error) {
			piece, err = fleet.ReadPiece(data)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(piece) == 0 || int64(len(b)+len(piece)) > ref.Size {
			return nil, fmt.Errorf("blob %s has not %d bytes", ref.Digest, ref.Size)
		}
		b = append(b, piece...)
		a.metrics.pulled.Add(float64(len(piece)))
	}
	if manifest.Of(b) != ref.Digest {
		return nil, fmt.Errorf("blob %s came as another", ref.Digest)
	}
	return b, a.keepBlob(b)
}

// keepBlob writes a blob down. A full disk is told, and keeps nothing from being served.
func (a *Agent) keepBlob(b []byte) error {
	if err := a.disk.putBlob(b); err != nil {
		a.trouble(fmt.Errorf("what is served cannot be kept on the disk: %w", err))
	}
	return nil
}

// ask asks the control plane until it answers well, a few times.
func (a *Agent) ask(ctx context.Context, what string, question any, read func([]byte) error) error {
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		wait, cancel := context.WithTimeout(ctx, patience)
		got, err := a.cfg.Bus.Request(wait, bus.Up(a.cfg.Pop, what), data)
		cancel()
		if err == nil {
			err = read(got)
		}
		if err == nil || try == tries || ctx.Err() != nil || errors.Is(err, bus.ErrAway) {
			return err
		}
		again := time.NewTimer(time.Duration(try*try) * 50 * time.Millisecond)
		select {
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		case <-again.C:
		}
	}
}

// serve puts a state in service. Tenants that the edge does not take are held one by one.
func (a *Agent) serve(ctx context.Context, from, to *state, changed map[string]*bundle.Bundle) error {
	if err := a.disk.put(to); err != nil {
		a.trouble(fmt.Errorf("what is served cannot be kept on the disk: %w", err))
	}
	if len(changed) > 0 {
		if err := a.cfg.Loader.ApplyTenants(ctx, changed); err != nil {
			if len(changed) == 1 && ctx.Err() != nil {
				return err
			}
			if err := a.oneByOne(ctx, from, to, changed); err != nil {
				return err
			}
		}
	}
	a.mu.Lock()
	a.current, a.problem = to, ""
	a.mu.Unlock()
	a.metrics.applied.Add(1)
	a.metrics.position.Set(float64(to.head.Revision))
	a.cfg.Served(to.head.Position)
	a.soon()
	a.settle(to)
	return nil
}

// oneByOne applies what was refused together, so that one tenant's fault is no other's.
func (a *Agent) oneByOne(ctx context.Context, from, to *state, changed map[string]*bundle.Bundle) error {
	for _, org := range slices.Sorted(maps.Keys(changed)) {
		err := a.cfg.Loader.ApplyTenants(ctx, map[string]*bundle.Bundle{org: changed[org]})
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return err
		}
		t, there := to.table.Find(org)
		if !there {
			t = manifest.Tenant{Organization: org}
		}
		was, served := from.serves(org)
		to.Held[org] = a.hold(&t, was, served, err.Error())
	}
	if err := a.disk.put(to); err != nil {
		a.trouble(fmt.Errorf("what is served cannot be kept on the disk: %w", err))
	}
	return nil
}

// settle takes a state for good once it was in service for a while, and removes what it replaced.
func (a *Agent) settle(s *state) {
	p := s.head.Position
	time.AfterFunc(a.cfg.Settle, func() {
		a.work.Lock()
		defer a.work.Unlock()
		a.mu.Lock()
		still := a.current == s
		a.mu.Unlock()
		if !still {
			return
		}
		t := a.disk.trial()
		if t.Position == p {
			t.Position, t.Starts, t.Process = manifest.Position{}, 0, 0
			_ = a.disk.setTrial(t) // the next start is then counted as one more, and two are needed
		}
		if n := a.disk.sweep(a.cfg.Keep, a.cfg.Loader.Parts); n > a.cfg.Blobs {
			a.disk.sweep(0, a.cfg.Loader.Parts)
		}
	})
}

// refuse tells of a manifest that is not taken.
func (a *Agent) refuse(org string, err error) {
	a.metrics.refused.Add(1)
	a.report(fleet.Report{Kind: fleet.ReportRefused, Organization: org, Text: err.Error()})
}

// again is how often the same thing is reported.
const again = time.Minute

// report tells the control plane that something happened, and the log.
func (a *Agent) report(r fleet.Report) {
	r.Text, r.Time = cut(r.Text), time.Now().UTC()
	key := string(r.Kind) + "\x00" + r.Organization + "\x00" + r.Text
	a.mu.Lock()
	last, known := a.reported[key]
	if len(a.reported) > 1000 {
		clear(a.reported)
	}
	a.reported[key] = time.Now()
	a.mu.Unlock()
	if known && time.Since(last) < again {
		return
	}
	a.cfg.Logger.Warn("told the control plane", "kind", string(r.Kind), "organization", r.Organization, "text", r.Text)
	if data, err := json.Marshal(&r); err == nil {
		_ = a.cfg.Bus.Publish(bus.Up(a.cfg.Pop, bus.Report), data) // the beat tells what still holds
	}
}

func cut(text string) string { return text[:min(len(text), fleet.MaxText)] }
