package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a table that holds what it is told.
type memory struct {
	list     map[netip.Prefix]Action
	hits     map[uint32]uint64
	replaced int
	fail     error
}

func newMemory() *memory {
	return &memory{list: map[netip.Prefix]Action{}, hits: map[uint32]uint64{}}
}

func (m *memory) put(e *entry) error {
	if m.fail == nil {
		m.list[e.Prefix] = e.Action
	}
	return m.fail
}

func (m *memory) remove(p netip.Prefix) error {
	if m.fail == nil {
		delete(m.list, p)
	}
	return m.fail
}

func (m *memory) replace(list []*entry) error {
	if m.fail != nil {
		return m.fail
	}
	m.replaced++
	clear(m.list)
	for _, e := range list {
		m.list[e.Prefix] = e.Action
	}
	return nil
}

func (m *memory) packets(slot uint32) uint64 { return m.hits[slot] }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func testRules(t *testing.T, manage ...netip.Prefix) (*Rules, *memory) {
	t.Helper()
	g := &guard{fixed: append([]protected{}, always...), root: t.TempDir()}
	for _, p := range manage {
		g.fixed = append(g.fixed, protected{p, "management address " + p.String()})
	}
	r, m := newRules(g, time.Now), newMemory()
	if err := r.attach(m); err != nil {
		t.Fatal(err)
	}
	return r, m
}

func TestABadRuleIsRefusedAndChangesNothing(t *testing.T) {
	soon := func() time.Time { return time.Now().Add(time.Minute) }
	cases := []struct {
		name, prefix, reason string
		until                time.Time
		want                 error
		says                 string
	}{
		{"everybody", "0.0.0.0/0", "x", soon(), ErrTooWide, "/8"},
		{"everybody, IPv6", "::/0", "x", soon(), ErrTooWide, "/19"},
		{"half of everybody", "128.0.0.0/1", "x", soon(), ErrTooWide, "/8"},
		{"everybody as IPv6", "::ffff:0:0/90", "x", soon(), ErrTooWide, "all of IPv4"},
		{"everybody, mapped", "::ffff:0.0.0.0/96", "x", soon(), ErrTooWide, "/8"},
		{"the operator", "203.0.113.9/32", "x", soon(), ErrCutsOff, "203.0.113.0/28"},
		{"the operator, mapped", "::ffff:203.0.113.9/128", "x", soon(), ErrCutsOff, "203.0.113.0/28"},
		{"a network of the operator", "203.0.0.0/16", "x", soon(), ErrCutsOff, "narrower"},
		{"this machine", "127.0.0.1/32", "x", soon(), ErrCutsOff, "this machine"},
		{"the link", "fe80::1/128", "x", soon(), ErrCutsOff, "link"},
		{"no end", "192.0.2.1/32", "x", time.Time{}, ErrExpiry, "passed"},
		{"an end that was", "192.0.2.1/32", "x", time.Now().Add(-time.Second), ErrExpiry, "passed"},
		{"for ever", "192.0.2.1/32", "x", time.Now().Add(1000 * time.Hour), ErrExpiry, "24h"},
		{"no reason", "192.0.2.1/32", "", soon(), ErrReason, "1 to 64"},
		{"a long reason", "192.0.2.1/32", strings.Repeat("x", 65), soon(), ErrReason, "64"},
		{"a reason with a label's end", "192.0.2.1/32", "a\"b", soon(), ErrReason, "a-z"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, m := testRules(t, pfx("203.0.113.0/28"))
			err := r.Deny(pfx(c.prefix), c.until, c.reason)
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("Deny(%s) = %v, want %v that says %q", c.prefix, err, c.want, c.says)
			}
			if len(m.list) != 0 || len(r.List()) != 0 {
				t.Errorf("the list has changed: %v", m.list)
			}
			if _, _, refused, _ := r.count(); refused != 1 {
				t.Errorf("%d refusals are counted, want 1", refused)
			}
		})
	}
	r, _ := testRules(t)
	if err := r.Deny(netip.Prefix{}, soon(), "x"); !errors.Is(err, ErrPrefix) {
		t.Errorf("no prefix: %v", err)
	}
}

func TestAManagementAddressMayBeAllowedAndDeniedNeither(t *testing.T) {
	r, m := testRules(t, pfx("203.0.113.0/28"))
	if err := r.Allow(pfx("203.0.113.1/32"), time.Now().Add(time.Hour), "x"); err != nil {
		t.Error(err)
	}
	if err := r.Deny(pfx("203.0.113.16/28"), time.Now().Add(time.Hour), "x"); err != nil {
		t.Errorf("the neighbours of the operator: %v", err)
	}
	if len(m.list) != 2 {
		t.Errorf("the kernel holds %v", m.list)
	}
}

func TestAProposalLeavesWhatSomebodyDecided(t *testing.T) {
	r, m := testRules(t)
	soon := time.Now().Add(time.Minute)
	if err := errors.Join(r.Allow(pfx("198.51.100.0/24"), soon, "by-hand"), r.Deny(pfx("192.0.2.9/32"), soon, "by-hand"), r.Deny(pfx("203.0.113.0/24"), soon, "by-hand")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]error{
		"198.51.100.7/32": ErrRuled, "192.0.2.9/32": ErrRuled, "192.0.2.10/32": nil, "203.0.113.1/32": nil, "::ffff:192.0.2.9/128": ErrRuled, "2001:db8::/64": nil,
	} {
		if err := r.Propose(pfx(p), soon, "flood"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
	if err := r.Propose(pfx("192.0.2.10/32"), soon.Add(time.Minute), "flood"); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if r.Withdraw(pfx("192.0.2.9/32"), "flood") || r.Withdraw(pfx("198.51.100.0/24"), "by-hand") || !r.Withdraw(pfx("192.0.2.10/32"), "flood") {
		t.Error("withdrawn is what was proposed, and nothing else")
	}
	if _, there := m.list[pfx("192.0.2.10/32")]; there || m.list[pfx("192.0.2.9/32")] != Deny {
		t.Errorf("%v", m.list)
	}
}

func TestARuleEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := testRules(t)
		for i, life := range []time.Duration{time.Second, time.Minute} {
			if err := r.Deny(pfx(fmt.Sprintf("192.0.2.%d/32", i)), time.Now().Add(life), "x"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if n := len(r.List()); n != 1 {
			t.Errorf("%d rules are listed after the first has ended", n)
		}
		if err := r.sweep(); err != nil {
			t.Fatal(err)
		}
		if _, there := m.list[pfx("192.0.2.0/32")]; there || len(m.list) != 1 {
			t.Errorf("the kernel holds %v", m.list)
		}
		if _, _, _, expired := r.count(); expired != 1 {
			t.Errorf("%d ends are counted", expired)
		}
		if err := r.Deny(pfx("192.0.2.1/32"), time.Now().Add(time.Hour), "y"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if n := len(r.List()); n != 1 {
			t.Error("a rule that was renewed has ended")
		}
	})
}

func TestSomebodyWhoComesToManageEndsTheDenial(t *testing.T) {
	r, m := testRules(t)
	if err := r.Deny(pfx("192.0.2.0/24"), time.Now().Add(time.Hour), "x"); err != nil {
		t.Fatal(err)
	}
	r.guard.live = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	if err := r.sweep(); err != nil {
		t.Fatal(err)
	}
	if len(m.list) != 0 {
		t.Errorf("the kernel holds %v", m.list)
	}
	if err := r.Deny(pfx("192.0.2.77/32"), time.Now().Add(time.Hour), "x"); !errors.Is(err, ErrCutsOff) {
		t.Errorf("who is connected is denied: %v", err)
	}
}

func TestTheListIsBounded(t *testing.T) {
	r, _ := testRules(t)
	until := time.Now().Add(time.Hour)
	for i := range maxReasons {
		if err := r.Deny(pfx(fmt.Sprintf("10.0.%d.1/32", i)), until, fmt.Sprint("reason-", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Deny(pfx("10.1.0.0/24"), until, "one-more"); !errors.Is(err, ErrReason) {
		t.Errorf("a reason too many: %v", err)
	}
	for i := range MaxRules - maxReasons {
		a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		if err := r.Deny(netip.PrefixFrom(a, 32), until, "reason-0"); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := r.Deny(pfx("12.0.0.0/24"), until, "reason-0"); !errors.Is(err, ErrFull) {
		t.Errorf("a rule too many: %v", err)
	}
	if err := r.Deny(pfx("11.0.0.0/32"), until, "reason-1"); err != nil {
		t.Errorf("a rule that is there is renewed: %v", err)
	}
	if !r.Remove(pfx("11.0.0.0/32")) || r.Remove(pfx("11.0.0.0/32")) {
		t.Error("a rule is removed once")
	}
	if err := r.Deny(pfx("12.0.0.0/24"), until, "reason-0"); err != nil {
		t.Errorf("no room after a removal: %v", err)
	}
}

func TestACounterBeginsAnewWithItsRule(t *testing.T) {
	r, m := testRules(t)
	until := time.Now().Add(time.Hour)
	_ = r.Deny(pfx("192.0.2.1/32"), until, "x")
	m.hits[0] = 7
	if l := r.List(); l[0].Packets != 7 {
		t.Errorf("counted %d", l[0].Packets)
	}
	r.Remove(pfx("192.0.2.1/32"))
	_ = r.Deny(pfx("192.0.2.2/32"), until, "x") // takes the same slot
	m.hits[0] = 9
	if l := r.List(); l[0].Packets != 2 {
		t.Errorf("counted %d, want 2", l[0].Packets)
	}
}

func TestAListIsReplacedWholeOrNotAtAll(t *testing.T) {
	r, m := testRules(t, pfx("203.0.113.0/28"))
	until := time.Now().Add(time.Hour)
	_ = r.Deny(pfx("192.0.2.1/32"), until, "old")
	rule := func(p string) Rule { return Rule{Prefix: pfx(p), Action: Deny, Until: until, Reason: "new"} }
	for name, list := range map[string][]Rule{
		"one is refused":       {rule("192.0.2.2/32"), rule("203.0.113.0/24")},
		"one is there twice":   {rule("192.0.2.2/32"), rule("192.0.2.2/32")},
		"one does nothing":     {{Prefix: pfx("192.0.2.3/32"), Until: until, Reason: "new"}},
		"one is of everybody":  {rule("0.0.0.0/0")},
		"there are many":       make([]Rule, MaxRules+1),
		"one has no end ahead": {{Prefix: pfx("192.0.2.3/32"), Action: Deny, Reason: "new"}},
	} {
		if err := r.Replace(list); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	m.fail = errors.New("no memory")
	if err := r.Replace([]Rule{rule("192.0.2.2/32")}); err == nil {
		t.Error("taken against the kernel")
	}
	m.fail = nil
	if l := r.List(); len(l) != 1 || l[0].Reason != "old" {
		t.Fatalf("the list is %v", l)
	}
	if err := r.Replace([]Rule{rule("192.0.2.2/32"), rule("2001:db8::/48")}); err != nil {
		t.Fatal(err)
	}
	if l := r.List(); len(l) != 2 || l[0].Prefix != pfx("192.0.2.2/32") || len(m.list) != 2 {
		t.Errorf("the list is %v, the kernel's %v", l, m.list)
	}
}

func TestWhatTheKernelMissedIsToldAgain(t *testing.T) {
	r, m := testRules(t)
	_ = r.Deny(pfx("192.0.2.1/32"), time.Now().Add(time.Hour), "x")
	m.fail = errors.New("busy")
	if err := r.Deny(pfx("192.0.2.2/32"), time.Now().Add(time.Hour), "x"); err == nil || len(r.List()) != 1 {
		t.Error("a rule that the kernel refused is in the list")
	}
	r.Remove(pfx("192.0.2.1/32"))
	if err := r.sweep(); err == nil {
		t.Error("nobody hears that the kernel refuses")
	}
	m.fail = nil
	if err := r.sweep(); err != nil || len(m.list) != 0 {
		t.Errorf("%v, the kernel holds %v", err, m.list)
	}
}
