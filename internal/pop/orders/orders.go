// Package orders keeps what people order at a PoP past the control plane, which may not be there: to stay where it is, to
// serve a state that was served before, or to leave a protection out. An order has an owner and a reason, ends by itself
// within a day, outlives the process, and is told to the control plane, which may end it.
package orders

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/manifest"
)

// Bounds of orders.
const (
	// Longest is how long an order may hold. Who wants more makes a revision.
	Longest = 24 * time.Hour
	// Max is how many hold at once.
	Max = 128
	// MaxText bounds the texts of an order, in bytes.
	MaxText = 512

	version  = 1
	maxBytes = 1 << 20 // of the file
)

// Act is what an order does.
type Act string

// The acts.
const (
	// Pin has the PoP stay at the state that it serves.
	Pin Act = "pin"
	// Rollback has it serve a kept state, and stay there.
	Rollback Act = "rollback"
	// Switch has it leave a protection out.
	Switch Act = "switch"
)

// Order is what a person wants of a PoP. It is the form on the bus as well, on down.NAME.order.
type Order struct {
	// ID is given by the Book, or by the control plane.
	ID  string `json:"id,omitempty"`
	Act Act    `json:"act"`
	// To is the state of a Rollback.
	To manifest.Position `json:"to,omitzero"`
	// Protection of a Switch; it holds for Site (organization/name), for all sites of Organization, or for all.
	Protection   string `json:"protection,omitempty"`
	Organization string `json:"organization,omitempty"`
	Site         string `json:"site,omitempty"`
	// Owner is who wants it, and Reason why.
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Given  time.Time `json:"given,omitzero"`
	Until  time.Time `json:"until"`
	// Local says that it was given at the PoP itself; Told that the control plane knows of it.
	Local bool `json:"local,omitempty"`
	Told  bool `json:"told,omitempty"`
}

// String is the order in words.
func (o *Order) String() string {
	what := string(o.Act)
	switch o.Act {
	case Rollback:
		what = fmt.Sprintf("rollback to %d.%d", o.To.Epoch, o.To.Revision)
	case Switch:
		what = o.Protection + " off for " + cmp.Or(o.Site, o.Organization, "all sites")
	}
	return fmt.Sprintf("%s until %s, by %s: %s", what, o.Until.UTC().Format(time.RFC3339), o.Owner, o.Reason)
}

// Errors of a Book.
var (
	// ErrOrder: the order says too little, too much, or what cannot be.
	ErrOrder = errors.New("order")
	// ErrMany: Max orders hold.
	ErrMany = fmt.Errorf("%w: %d hold already, which are the most: end some", ErrOrder, Max)
	// ErrUnknown: no such order holds.
	ErrUnknown = fmt.Errorf("%w: none with this id holds", ErrOrder)
)

// check says what is wrong with an order that is given now.
func (o *Order) check(now time.Time) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOrder}, args...)...)
	}
	for _, text := range []string{o.ID, o.Protection, o.Organization, o.Site, o.Owner, o.Reason} {
		if len(text) > MaxText {
			return wrong("a text of %d bytes; %d are the most", len(text), MaxText)
		}
	}
	switch {
	case strings.TrimSpace(o.Owner) == "" || strings.TrimSpace(o.Reason) == "":
		return wrong("say who gives it (owner) and why (reason)")
	case !o.Until.After(now):
		return wrong("it ended at %s: give a time that is to come", o.Until.UTC().Format(time.RFC3339))
	case o.Until.After(now.Add(Longest)):
		return wrong("it would hold until %s; %v are the most, who wants more makes a revision", o.Until.UTC().Format(time.RFC3339), Longest)
	case o.Act == Switch && o.Protection == "":
		return wrong("say which protection is to be left out")
	case o.Act != Switch && (o.Protection != "" || o.Organization != "" || o.Site != ""):
		return wrong("%s is of the whole PoP: name no protection, organization or site", o.Act)
	case o.Act == Rollback && o.To == manifest.Position{}:
		return wrong("say to which state (epoch and revision)")
	case o.Act != Pin && o.Act != Rollback && o.Act != Switch:
		return wrong("%.32q is none; write pin, rollback or switch", o.Act)
	}
	return nil
}

// Book keeps orders in a file.
type Book struct {
	path    string
	changed chan struct{}

	mu   sync.Mutex
	list []Order
	ends map[string]time.Time // by the monotonic clock: a jump of the wall clock ends no order, and makes none longer
	lost error                // why the file does not have what holds
}

type content struct {
	Version int     `json:"version"`
	Orders  []Order `json:"orders"`
}

// Open takes up the orders in a file, those that are over apart. One that is there but cannot be read is set aside, as it
// must stop no start: the error says so, and the Book is good all the same.
func Open(path string) (*Book, error) {
	b := &Book{path: path, changed: make(chan struct{}, 1), ends: map[string]time.Time{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	var c content
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("it has %d bytes; %d are the most", len(data), maxBytes)
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && c.Version != version {
		err = fmt.Errorf("it has version %d; %d can be read", c.Version, version)
	}
	if err != nil {
		return b, errors.Join(fmt.Errorf("the orders in %s cannot be read, so that none holds: %w", path, err), os.Rename(path, path+".bad"))
	}
	now := time.Now()
	for _, o := range c.Orders[:min(len(c.Orders), Max)] {
		// A clock that was set back while the process was away must not make it longer than an order can be.
		if left := min(o.Until.Sub(now), Longest); left > 0 && o.ID != "" {
			b.list = append(b.list, o)
			b.ends[o.ID] = now.Add(left)
		}
	}
	return b, nil
}

// Changed is sent to when other orders hold than before.
func (b *Book) Changed() <-chan struct{} { return b.changed }

func (b *Book) stir() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Give has an order hold, and returns it with what the Book adds. An order takes the place of one with its id, of one that
// means the same, and a Pin and a Rollback that of each other. An error that is not ErrOrder says that it holds, but
// would not after a restart.
func (b *Book) Give(o Order) (Order, error) {
	now := time.Now()
	if err := o.check(now); err != nil {
		return o, err
	}
	if o.ID == "" {
		o.ID = rand.Text()
	}
	o.Given = now.UTC().Round(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	rest := slices.DeleteFunc(slices.Clone(b.list), func(p Order) bool { return p.ID == o.ID || o.replaces(&p) })
	if len(rest) >= Max {
		return o, ErrMany
	}
	b.list = append(rest, o)
	b.ends[o.ID] = now.Add(o.Until.Sub(now))
	b.forget()
	b.stir()
	return o, b.write()
}

// replaces says whether an order leaves nothing of another.
func (o *Order) replaces(p *Order) bool {
	if o.Act != Switch || p.Act != Switch {
		return o.Act != Switch && p.Act != Switch
	}
	return o.Protection == p.Protection && o.Organization == p.Organization && o.Site == p.Site
}

// End ends an order before its time. An error that is not ErrOrder says that it would hold again after a restart.
func (b *Book) End(id string) (Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	i := slices.IndexFunc(b.list, func(o Order) bool { return o.ID == id })
	if i < 0 {
		return Order{}, ErrUnknown
	}
	o := b.list[i]
	b.list = slices.Delete(slices.Clone(b.list), i, i+1)
	b.forget()
	b.stir()
	return o, b.write()
}

// Active are the orders that hold, the oldest first.
func (b *Book) Active() []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(time.Now())
	return slices.Clone(b.list)
}

// Told notes that the control plane knows of orders. Of what Active gave before, it is those that were not Told yet.
func (b *Book) Told(ids ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.Clone(b.list)
	news := false
	for i := range b.list {
		if o := &b.list[i]; !o.Told && slices.Contains(ids, o.ID) {
			o.Told, news = true, true
		}
	}
	if !news {
		return nil
	}
	return b.write()
}

// Err says why what holds is not in the file; nil where it is.
func (b *Book) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost
}

// Run tells Changed when an order ends by itself, and writes again what could not be written, until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		b.mu.Lock()
		if b.sweep(time.Now()) || b.lost != nil {
			_ = b.write() // Err tells
		}
		b.mu.Unlock()
	}
}

// sweep removes what is over. The lock is held.
func (b *Book) sweep(now time.Time) bool {
	n := len(b.list)
	b.list = slices.DeleteFunc(slices.Clone(b.list), func(o Order) bool { return !now.Before(b.ends[o.ID]) })
	if len(b.list) == n {
		return false
	}
	b.forget()
	b.stir()
	return true
}

// forget drops the ends of orders that are gone. The lock is held.
func (b *Book) forget() {
	for id := range b.ends {
		if !slices.ContainsFunc(b.list, func(o Order) bool { return o.ID == id }) {
			delete(b.ends, id)
		}
	}
}

// write puts the orders into the file, whole or not at all, also when the power is cut. The lock is held.
func (b *Book) write() error {
	data, err := json.Marshal(&content{version, b.list})
	if err == nil {
		err = replace(b.path, data)
	}
	if err != nil {
		err = fmt.Errorf("the orders cannot be kept, and would not hold after a restart: %w", err)
	}
	b.lost = err
	return err
}

func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
