package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/manifest"
)

func open(t *testing.T, path string) *Book {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// off is an order that leaves a protection out.
func off(protection, site string, d time.Duration) Order {
	return Order{Act: Switch, Protection: protection, Site: site, Owner: "ada", Reason: "it blocks buyers", Until: time.Now().Add(d)}
}

func give(t *testing.T, b *Book, o Order) Order {
	t.Helper()
	o, err := b.Give(o)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAnOrderOutlivesTheProcessAndEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "pop", "orders.json")
		b := open(t, path)
		waf := give(t, b, off("waf", "a/shop", time.Hour))
		give(t, b, off("bots", "", 2*time.Hour))
		if waf.ID == "" || waf.Given.IsZero() {
			t.Errorf("%+v", waf)
		}
		if err := b.Told(waf.ID, "unknown"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		b = open(t, path)
		list := b.Active()
		if len(list) != 2 || !list[0].Told || list[1].Told || list[0].Reason != "it blocks buyers" {
			t.Fatalf("%+v", list)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		begin := time.Now()
		<-b.Changed()
		if after := time.Since(begin); after < 29*time.Minute || after > 31*time.Minute {
			t.Errorf("the first one ended after %v", after)
		}
		if list := b.Active(); len(list) != 1 || list[0].Protection != "bots" {
			t.Errorf("%+v", list)
		}
		if list := open(t, path).Active(); len(list) != 1 {
			t.Errorf("on the disk: %+v", list)
		}
		if _, err := b.End(waf.ID); !errors.Is(err, ErrUnknown) {
			t.Errorf("to end what is over: %v", err)
		}
		if _, err := b.End(list[1].ID); err != nil || len(b.Active()) != 0 || len(open(t, path).Active()) != 0 {
			t.Errorf("%v, %+v", err, b.Active())
		}
		cancel()
		<-done
	})
}

// A process that was away while the clock was set back takes no order for longer than one can be.
func TestAClockThatJumpsMakesNoOrderLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "orders.json")
		o := off("waf", "", 20*time.Hour)
		o.ID, o.Until = "x", o.Until.Add(72*time.Hour)
		data, _ := json.Marshal(&content{version, []Order{o}})
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(t, path)
		time.Sleep(Longest - time.Second)
		if len(b.Active()) != 1 {
			t.Error("it ended early")
		}
		time.Sleep(2 * time.Second)
		if len(b.Active()) != 0 {
			t.Error("it holds for more than a day")
		}
	})
}

func TestWhatCannotBeAnOrderIsRefused(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "orders.json"))
	for name, change := range map[string]func(*Order){
		"no owner":          func(o *Order) { o.Owner = " " },
		"no reason":         func(o *Order) { o.Reason = "" },
		"over":              func(o *Order) { o.Until = time.Now().Add(-time.Second) },
		"for days":          func(o *Order) { o.Until = time.Now().Add(Longest + time.Minute) },
		"no protection":     func(o *Order) { o.Protection = "" },
		"no act":            func(o *Order) { o.Act = "explode" },
		"a pin of a site":   func(o *Order) { o.Act = Pin },
		"rollback nowhere":  func(o *Order) { o.Act, o.Protection, o.Site = Rollback, "", "" },
		"a reason too long": func(o *Order) { o.Reason = strings.Repeat("x", MaxText+1) },
	} {
		o := off("waf", "a/shop", time.Hour)
		change(&o)
		if _, err := b.Give(o); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range Max {
		give(t, b, off("waf", fmt.Sprint("a/", i), time.Hour))
	}
	if _, err := b.Give(off("waf", "a/more", time.Hour)); !errors.Is(err, ErrMany) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := b.Give(off("waf", "a/0", 2*time.Hour)); err != nil || len(b.Active()) != Max {
		t.Errorf("in the place of another: %v", err)
	}
}

func TestAnOrderTakesThePlaceOfWhatItContradicts(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "orders.json"))
	pin := Order{Act: Pin, Owner: "ada", Reason: "odd numbers", Until: time.Now().Add(time.Hour)}
	give(t, b, off("waf", "", time.Hour))
	give(t, b, pin)
	back := pin
	back.Act, back.To = Rollback, manifest.Position{Epoch: 1, Revision: 7}
	give(t, b, back)
	list := b.Active()
	if len(list) != 2 || list[1].Act != Rollback || list[1].To.Revision != 7 {
		t.Errorf("%+v", list)
	}
	if text := list[1].String(); !strings.Contains(text, "rollback to 1.7") || !strings.Contains(text, "by ada: odd numbers") {
		t.Error(text)
	}
	sent := list[0] // the control plane confirms it, for longer
	sent.Until = sent.Until.Add(time.Hour)
	if list = b.Active(); len(list) != 2 {
		t.Fatal(list)
	}
	if got := give(t, b, sent); got.ID != list[0].ID || len(b.Active()) != 2 {
		t.Errorf("%+v", b.Active())
	}
}

func TestAFileThatCannotBeReadStopsNoStart(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":9}`, strings.Repeat(" ", maxBytes+1)} {
		path := filepath.Join(t.TempDir(), "orders.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(path)
		if b == nil || err == nil {
			t.Fatalf("%.20q: %v, %v", text, b, err)
		}
		give(t, b, off("waf", "", time.Hour))
		if len(open(t, path).Active()) != 1 {
			t.Errorf("%.20q: no new orders", text)
		}
		if _, err := os.Stat(path + ".bad"); err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// An order that cannot be kept holds all the same, and is kept once there is room.
func TestAnOrderHoldsWithoutADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "pop")
		path := filepath.Join(dir, "orders.json")
		b := open(t, path)
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // no folder can be made here
			t.Fatal(err)
		}
		if _, err := b.Give(off("waf", "", time.Hour)); err == nil || errors.Is(err, ErrOrder) || len(b.Active()) != 1 || b.Err() == nil {
			t.Fatalf("%v, %+v", err, b.Active())
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if b.Err() != nil || len(open(t, path).Active()) != 1 {
			t.Errorf("with room again: %v", b.Err())
		}
		cancel()
		<-done
	})
}

// TestChild is the process that is killed by the test below.
func TestChild(t *testing.T) {
	path := os.Getenv("RELAIS_TEST_ORDERS")
	if path == "" {
		return
	}
	b := open(t, path)
	fmt.Println("ready")
	for i := 0; ; i++ {
		give(t, b, off("waf", fmt.Sprint("a/", i%Max), time.Hour))
	}
}

func TestAKillAtAnyMomentLeavesTheFileWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	give(t, open(t, path), off("bots", "", time.Hour))
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "RELAIS_TEST_ORDERS="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var line [5]byte
		if _, err := out.Read(line[:]); err != nil || string(line[:]) != "ready" {
			t.Fatalf("%q, %v", line, err)
		}
		<-time.After(time.Duration(i*i) * 700 * time.Microsecond) // some moment; nothing depends on which
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		list := open(t, path).Active()
		if len(list) == 0 || list[0].Protection != "bots" && len(list) < Max-1 {
			t.Fatalf("after kill %d: %d orders", i, len(list))
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"version":1,"orders":[{"id":"x","act":"pin","until":"2100-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "orders.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := Open(path)
		if n := len(b.Active()); n > Max {
			t.Fatalf("%d orders", n)
		}
	})
}
