package packet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rules is the list of rules: checked, bounded, each with an end. It is safe for many goroutines.
// What is written before the filter has attached, or while nothing is attached, is kept and told
// to the kernel once something is.
type Rules struct {
	guard *guard
	now   func() time.Time

	mu      sync.Mutex
	list    map[netip.Prefix]*entry
	free    []uint32 // slots of counters that were given back
	slots   uint32   // that were ever in use
	reasons map[string]int
	table   table // nil while nothing is attached
	refused uint64
	expired uint64
	dirty   error // why the kernel does not hold what the list says; nil when it does
}

// entry is a rule with the place of its counter.
type entry struct {
	Rule
	slot uint32
	base uint64 // what the counter of the slot said when the rule was made
}

// table is what holds the rules in the kernel. Calls come one at a time.
type table interface {
	// put adds a rule, or gives it another action and end.
	put(e *entry) error
	remove(p netip.Prefix) error
	// replace changes the whole list at once: a packet meets the old list or the new one.
	replace(list []*entry) error
	// packets is what the counter of a slot says.
	packets(slot uint32) uint64
}

func newRules(g *guard, now func() time.Time) *Rules {
	return &Rules{guard: g, now: now, list: map[netip.Prefix]*entry{}, reasons: map[string]int{}}
}

// Deny drops what comes from prefix until then. The same prefix again moves its end and its reason.
// The reason is a short name such as syn-flood: it labels a counter, so it holds no address. An
// error says that nothing changed: ErrCutsOff, ErrTooWide, ErrFull, ErrExpiry, ErrPrefix, ErrReason.
func (r *Rules) Deny(prefix netip.Prefix, until time.Time, reason string) error {
	return r.put(Rule{Prefix: prefix, Action: Deny, Until: until, Reason: reason})
}

// Allow passes what comes from prefix until then, past wider denials. Errors are as of Deny.
func (r *Rules) Allow(prefix netip.Prefix, until time.Time, reason string) error {
	return r.put(Rule{Prefix: prefix, Action: Allow, Until: until, Reason: reason})
}

func (r *Rules) put(rule Rule) error {
	rule, err := r.check(rule)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		err = r.room(rule)
	}
	if err != nil {
		r.refused++
		return err
	}
	e, known := r.list[rule.Prefix]
	if !known {
		e = &entry{Rule: rule, slot: r.takeSlot()}
		if r.table != nil {
			e.base = r.table.packets(e.slot)
		}
	}
	next := *e
	next.Action, next.Until, next.Reason = rule.Action, rule.Until, rule.Reason
	if r.table != nil {
		if err := r.table.put(&next); err != nil {
			if !known {
				r.free = append(r.free, e.slot)
			}
			return fmt.Errorf("the kernel did not take the rule for %s: %w", rule.Prefix, err)
		}
	}
	if known {
		r.forgetReason(e.Reason)
	}
	r.reasons[next.Reason]++
	r.list[rule.Prefix] = &next
	return nil
}

// room says whether one rule more has a place. It is called with the lock held.
func (r *Rules) room(rule Rule) error {
	if _, known := r.list[rule.Prefix]; !known && len(r.list) >= MaxRules {
		return fmt.Errorf("%w: it holds %d; let some end, or deny wider prefixes", ErrFull, MaxRules)
	}
	if _, known := r.reasons[rule.Reason]; !known && len(r.reasons) >= maxReasons {
		return fmt.Errorf("%w: %d different ones are in use; a reason is the name of a cause and not of a source", ErrReason, maxReasons)
	}
	return nil
}

func (r *Rules) takeSlot() uint32 {
	if n := len(r.free); n > 0 {
		s := r.free[n-1]
		r.free = r.free[:n-1]
		return s
	}
	r.slots++
	return r.slots - 1
}

func (r *Rules) forgetReason(name string) {
	if r.reasons[name]--; r.reasons[name] <= 0 {
		delete(r.reasons, name)
	}
}

// check says whether a rule may be, and brings its prefix into its one form.
func (r *Rules) check(rule Rule) (Rule, error) {
	p, err := oneForm(rule.Prefix)
	if err != nil {
		return rule, err
	}
	now := r.now()
	rule.Prefix, rule.Since = p, now
	switch left := rule.Until.Sub(now); {
	case left <= 0:
		return rule, fmt.Errorf("%w: %s has passed", ErrExpiry, rule.Until.Format(time.RFC3339))
	case left > MaxFor:
		return rule, fmt.Errorf("%w: a rule lives %s at most; renew it", ErrExpiry, MaxFor)
	}
	if err := checkReason(rule.Reason); err != nil {
		return rule, err
	}
	if widest := widest(p); p.Bits() < widest {
		return rule, fmt.Errorf("%w: %s; the widest is a /%d", ErrTooWide, p, widest)
	}
	if rule.Action == Deny {
		if what, hit := r.guard.hit(p); hit {
			return rule, fmt.Errorf("%w: %s holds %s; deny narrower prefixes beside it", ErrCutsOff, p, what)
		}
	}
	return rule, nil
}

func widest(p netip.Prefix) int {
	if p.Addr().Is4() {
		return WidestV4
	}
	return WidestV6
}

// oneForm masks a prefix and makes a mapped IPv4 prefix (RFC 4291 section 2.5.5.2) one of IPv4.
func oneForm(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() || p.Addr().Zone() != "" {
		return p, fmt.Errorf("%w: write it as 192.0.2.0/24 or 2001:db8::/48", ErrPrefix)
	}
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() {
		if bits < 96 {
			return p, fmt.Errorf("%w: %s holds all of IPv4", ErrTooWide, p)
		}
		a, bits = a.Unmap(), bits-96
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

func checkReason(s string) error {
	if s == "" || len(s) > MaxReason {
		return fmt.Errorf("%w: it has 1 to %d bytes", ErrReason, MaxReason)
	}
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return fmt.Errorf("%w: %q; it is written of a-z, 0-9, - and _", ErrReason, s)
		}
	}
	return nil
}

// Propose is Deny for a program that nobody watches: what another reason already decides for the prefix, or passes for a
// wider one, stays as it is (ErrRuled). The same reason again moves the end.
func (r *Rules) Propose(prefix netip.Prefix, until time.Time, reason string) error {
	p, err := oneForm(prefix)
	if err != nil {
		return err
	}
	if r.ruled(p, reason) {
		return fmt.Errorf("%w: %s", ErrRuled, p)
	}
	return r.Deny(p, until, reason)
}

// ruled says whether somebody else has decided about a prefix: on just this one, or that a wider one passes.
func (r *Rules) ruled(p netip.Prefix, reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.list[p]; e != nil && e.Reason != reason {
		return true
	}
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		wider, err := p.Addr().Prefix(bits)
		if err != nil {
			return false
		}
		if e := r.list[wider]; e != nil {
			return e.Action == Allow // the longest prefix decides
		}
	}
	return false
}

// Withdraw ends the denial of exactly this prefix if it was made for this reason, and says whether it was.
func (r *Rules) Withdraw(prefix netip.Prefix, reason string) bool {
	p, err := oneForm(prefix)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.list[p]
	if ok = ok && e.Action == Deny && e.Reason == reason; ok {
		r.drop(e)
	}
	return ok
}

// Remove ends the rule of exactly this prefix, and says whether there was one.
func (r *Rules) Remove(prefix netip.Prefix) bool {
	p, err := oneForm(prefix)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.list[p]
	if ok {
		r.drop(e)
	}
	return ok
}

// drop ends a rule. It is called with the lock held. What the kernel does not let go is put right by
// the next look at the list, and ends there by its own clock at the latest.
func (r *Rules) drop(e *entry) {
	if r.table != nil {
		if err := r.table.remove(e.Prefix); err != nil {
			r.dirty = err
		}
	}
	delete(r.list, e.Prefix)
	r.free = append(r.free, e.slot)
	r.forgetReason(e.Reason)
}

// Replace puts a list in the place of all rules. When one of them is refused, nothing changes. Where
// XDP filters, a packet meets the old list of its family or the new one, never a part of one.
func (r *Rules) Replace(list []Rule) error {
	if len(list) > MaxRules {
		return fmt.Errorf("%w: %d rules, the most is %d", ErrFull, len(list), MaxRules)
	}
	checked := make(map[netip.Prefix]*entry, len(list))
	reasons := map[string]int{}
	for _, rule := range list {
		rule, err := r.check(rule)
		if err == nil && rule.Action != Deny && rule.Action != Allow {
			err = fmt.Errorf("%s: the action is deny or allow", rule.Prefix)
		}
		if err != nil {
			r.mu.Lock()
			r.refused++
			r.mu.Unlock()
			return err
		}
		if old := checked[rule.Prefix]; old != nil {
			return fmt.Errorf("%w: %s is in the list twice", ErrPrefix, rule.Prefix)
		}
		checked[rule.Prefix] = &entry{Rule: rule}
		reasons[rule.Reason]++
	}
	if len(reasons) > maxReasons {
		return fmt.Errorf("%w: %d different ones, the most is %d", ErrReason, len(reasons), maxReasons)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.swap(checked, reasons)
}

// swap puts a checked list in service. It is called with the lock held. Slots of the old list are
// not used again by the new one, as packets that are under way still count in them.
func (r *Rules) swap(list map[netip.Prefix]*entry, reasons map[string]int) error {
	was, slots := slices.Clone(r.free), r.slots
	for p, e := range list {
		if old := r.list[p]; old != nil {
			e.slot, e.base, e.Since = old.slot, old.base, old.Since
			continue
		}
		e.slot = r.takeSlot()
		if r.table != nil {
			e.base = r.table.packets(e.slot)
		}
	}
	if r.table != nil {
		if err := r.table.replace(entries(list)); err != nil {
			r.free, r.slots = was, slots
			return fmt.Errorf("the kernel did not take the list: %w", err)
		}
	}
	for p, e := range r.list {
		if list[p] == nil {
			r.free = append(r.free, e.slot)
		}
	}
	r.list, r.reasons, r.dirty = list, reasons, nil
	return nil
}

func entries(list map[netip.Prefix]*entry) []*entry {
	all := make([]*entry, 0, len(list))
	for _, e := range list {
		all = append(all, e)
	}
	return all
}

// List returns the rules that have not ended, the narrowest order first: by address, then by length.
func (r *Rules) List() []Rule {
	r.mu.Lock()
	now := r.now()
	out := make([]Rule, 0, len(r.list))
	for _, e := range r.list {
		if !e.Until.After(now) {
			continue
		}
		rule := e.Rule
		if r.table != nil {
			rule.Packets = r.table.packets(e.slot) - e.base
		}
		out = append(out, rule)
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b Rule) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	return out
}

// count returns how many rules of each reason there are.
func (r *Rules) count() (rules int, byReason map[string]int, refused, expired uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byReason = make(map[string]int, len(r.reasons))
	for k, v := range r.reasons {
		byReason[strings.Clone(k)] = v
	}
	return len(r.list), byReason, r.refused, r.expired
}

// sweep ends what has passed, and what would cut off somebody who has come to manage the machine
// since; and it tells the kernel the whole list again where it missed a part.
func (r *Rules) sweep() error {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.list {
		if !e.Until.After(now) {
			r.drop(e)
			r.expired++
		} else if _, hit := r.guard.hit(e.Prefix); hit && e.Action == Deny {
			r.drop(e)
		}
	}
	if r.dirty != nil && r.table != nil {
		if err := r.table.replace(entries(r.list)); err != nil {
			return err
		}
		r.dirty = nil
	}
	return nil
}

// again tells the kernel the whole list, as after a change of who manages the machine.
func (r *Rules) again() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil {
		return nil
	}
	if r.dirty = r.table.replace(entries(r.list)); r.dirty != nil {
		return r.dirty
	}
	return nil
}

// attach has a table hold the rules from now on; nil ends that.
func (r *Rules) attach(t table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = t
	if t == nil {
		return nil
	}
	for _, e := range r.list {
		e.base = 0
	}
	if err := t.replace(entries(r.list)); err != nil {
		r.table = nil
		return err
	}
	return nil
}
