package shop_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/demo/shop"
)

func openLedger(t testing.TB, dir string) *shop.Ledger {
	t.Helper()
	l, err := shop.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestRepeatedKeyIsOneOrderAcrossClusters(t *testing.T) {
	dir := t.TempDir()
	clusters := []http.Handler{
		newShop(t, shop.Config{DataDir: dir, Cluster: "home", Capacity: 100}).Handler(),
		newShop(t, shop.Config{DataDir: dir, Cluster: "overflow", Capacity: 100}).Handler(),
	}
	basket := fill(t, clusters[0])
	const key = "one-key-for-all-of-them"
	var mu sync.Mutex
	statuses, orders := map[int]int{}, map[string]int{}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			<-start
			r := ask(clusters[i%2], "POST", "/checkout", buyerForm, basket, `Idempotency-Key: "`+key+`"`)
			mu.Lock()
			defer mu.Unlock()
			statuses[r.StatusCode]++
			orders[r.Header.Get("Location")]++
		})
	}
	close(start)
	wg.Wait()
	if statuses[http.StatusCreated] != 1 || statuses[http.StatusOK] != 49 || len(orders) != 1 {
		t.Errorf("statuses %v, orders %v; want one 201, 49 times 200, one order", statuses, orders)
	}
	ledger := openLedger(t, dir)
	written, err := ledger.ByKey(t.Context(), key)
	if err != nil || len(written) != 1 || orders["/order/"+written[0].ID] != 50 {
		t.Errorf("the ledger has %v (%v)", written, err)
	}
	if n, err := ledger.Count(t.Context()); n != 1 || err != nil {
		t.Errorf("the ledger has %d orders (%v)", n, err)
	}
	page := text(t, ask(clusters[1], "GET", "/order/"+written[0].ID, ""))
	if !strings.Contains(page, "Ada Lovelace") || !strings.Contains(page, "2 ×") {
		t.Error("the order's page does not show the order")
	}
	if r := ask(clusters[1], "GET", "/checkout", "", basket); r.StatusCode != http.StatusSeeOther {
		t.Errorf("after the order the basket is not empty: checkout gives %d", r.StatusCode)
	}
}

func TestKeyOfAnotherBasketIsRefused(t *testing.T) {
	s := newShop(t, shop.Config{})
	form := buyerForm + "&idempotency_key=the-first-buyers-key"
	mine, other := fill(t, s.Handler()), fill(t, s.Handler())
	if r := ask(s.Handler(), "POST", "/checkout", form, mine); r.StatusCode != http.StatusCreated {
		t.Fatalf("status %d", r.StatusCode)
	}
	r := ask(s.Handler(), "POST", "/checkout", form, other)
	if r.StatusCode != http.StatusConflict || r.Header.Get("Location") != "" {
		t.Errorf("another's key: status %d, Location %q", r.StatusCode, r.Header.Get("Location"))
	}
	// The first buyer goes on shopping; the old key must not order the new basket.
	ask(s.Handler(), "POST", "/basket", "action=add&sku=MUG-0100", mine)
	if r := ask(s.Handler(), "POST", "/checkout", form, mine); r.StatusCode != http.StatusOK {
		t.Errorf("repeated: status %d", r.StatusCode)
	}
	if n := s.Stats().Orders; n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

func TestOrderThroughTheAPI(t *testing.T) {
	h := newShop(t, shop.Config{}).Handler()
	const media = "Content-Type: application/json"
	r := ask(h, "POST", "/api/basket", `{"action":"add","sku":"MUG-0103","quantity":3}`, media)
	if r.StatusCode != http.StatusOK || !strings.Contains(text(t, r), `"quantity":3`) {
		t.Fatalf("basket: status %d", r.StatusCode)
	}
	basket := "Cookie: basket=" + r.Cookies()[0].Value
	order := `{"name":"Ada","email":"ada@example.org","address":"12 Harbour Street"}`
	first := ask(h, "POST", "/api/orders", order, media, basket, "Idempotency-Key: api-key-0001")
	again := ask(h, "POST", "/api/orders", order, media, basket, "Idempotency-Key: api-key-0001")
	if first.StatusCode != http.StatusCreated || again.StatusCode != http.StatusOK ||
		first.Header.Get("Location") != again.Header.Get("Location") {
		t.Errorf("first %d %s, again %d %s", first.StatusCode, first.Header.Get("Location"), again.StatusCode, again.Header.Get("Location"))
	}
	if got := text(t, ask(h, "GET", first.Header.Get("Location"), "")); !strings.Contains(got, `"quantity":3`) {
		t.Errorf("the order reads %s", got)
	}
	if r := ask(h, "POST", "/api/orders", order, media, basket, "Idempotency-Key: api-key-0002"); r.StatusCode != http.StatusConflict {
		t.Errorf("an empty basket was ordered: status %d", r.StatusCode)
	}
}

func TestOldBasketsAreSwept(t *testing.T) {
	h := newShop(t, shop.Config{})
	old, fresh := fill(t, h.Handler()), fill(t, h.Handler())
	for _, c := range []struct {
		before time.Time
		keep   int
		gone   int64
		left   string
	}{
		{time.Now().Add(-time.Hour), 10, 0, old},
		{time.Now().Add(-time.Hour), 1, 1, fresh}, // the older one goes first
		{time.Now().Add(time.Hour), 10, 1, ""},
	} {
		gone, err := h.SweepBaskets(t.Context(), c.before, c.keep)
		if err != nil || gone != c.gone {
			t.Errorf("swept %d (%v), want %d", gone, err, c.gone)
		}
		if c.left != "" && ask(h.Handler(), "GET", "/checkout", "", c.left).StatusCode != http.StatusOK {
			t.Error("a basket that should stay is gone")
		}
	}
}

func TestLedgerOfNoShopIsAnError(t *testing.T) {
	if _, err := shop.OpenLedger(t.TempDir()); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// childEnv makes the test binary a shop: "CLUSTER DIRECTORY".
const childEnv = "SHOP_TEST_CHILD"

func childMain() int {
	cluster, dir, _ := strings.Cut(os.Getenv(childEnv), " ")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := shop.New(shop.Config{Cluster: cluster, DataDir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	if err := s.Run(context.Background(), l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startChild runs a shop as a process of its own.
func startChild(t *testing.T, cluster, dir string) (address string, kill func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self, "-test.run=^$")
	child.Env = append(os.Environ(), childEnv+"="+cluster+" "+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = child.Process.Kill() // SIGKILL
		_ = child.Wait()
	})
	t.Cleanup(kill)
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the shop's process did not start: %v", err)
	}
	return strings.TrimSpace(first), kill
}

// post sends a form over the network. err is not nil when there was no whole answer.
func post(client *http.Client, address, path, form, cookie string) (*http.Response, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+address+path, strings.NewReader(form))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	out, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	_, err = io.Copy(io.Discard, out.Body)
	return out, err
}

func TestConfirmedOrdersSurviveKill9(t *testing.T) {
	for _, before := range []int{3, 40, 120} {
		t.Run(fmt.Sprintf("after %d orders", before), func(t *testing.T) { killAfter(t, before) })
	}
}

// killAfter kills the home cluster when it has confirmed so many orders.
func killAfter(t *testing.T, before int) {
	dir := t.TempDir()
	home, killHome := startChild(t, "home", dir)
	overflow, _ := startChild(t, "overflow", dir)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	const buyers = 8
	type sent struct{ key, cookie, confirmed string }
	var mu sync.Mutex
	var all []sent
	confirmed, dead := 0, make(chan struct{})
	var wg sync.WaitGroup
	for b := range buyers {
		wg.Go(func() {
			for n := 0; ; n++ {
				r, err := post(client, home, "/basket", "action=add&sku=LMP-0100", "")
				if err != nil || len(r.Cookies()) == 0 {
					return // the cluster is dead
				}
				o := sent{key: fmt.Sprintf("buyer-%d-order-%d", b, n), cookie: "basket=" + r.Cookies()[0].Value}
				r, err = post(client, home, "/checkout", buyerForm+"&idempotency_key="+o.key, o.cookie)
				mu.Lock()
				if err == nil && r.StatusCode == http.StatusCreated {
					o.confirmed = strings.TrimPrefix(r.Header.Get("Location"), "/order/")
					if confirmed++; confirmed == before {
						close(dead)
					}
				}
				all = append(all, o)
				mu.Unlock()
			}
		})
	}
	<-dead
	killHome() // in the middle of the other buyers' orders
	wg.Wait()
	t.Logf("%d orders sent, %d confirmed before the death of the cluster", len(all), confirmed)

	ledger := openLedger(t, dir)
	for i, o := range all {
		written, err := ledger.ByKey(t.Context(), o.key)
		if err != nil || len(written) > 1 {
			t.Fatalf("%s: %d entries (%v)", o.key, len(written), err)
		}
		if o.confirmed != "" && (len(written) != 1 || written[0].ID != o.confirmed) {
			t.Errorf("%s was confirmed as %s; the ledger has %v", o.key, o.confirmed, written)
		}
		if o.confirmed != "" {
			continue
		}
		// The buyer tries again, and the other cluster has the basket or the order.
		r, err := post(client, overflow, "/checkout", buyerForm+"&idempotency_key="+o.key, o.cookie)
		if err != nil || r.StatusCode/100 != 2 {
			t.Fatalf("%s at the other cluster: %v (%v)", o.key, r, err)
		}
		all[i].confirmed = strings.TrimPrefix(r.Header.Get("Location"), "/order/")
		if written, err = ledger.ByKey(t.Context(), o.key); err != nil || len(written) != 1 || written[0].ID != all[i].confirmed {
			t.Errorf("%s: told %s, the ledger has %v (%v)", o.key, all[i].confirmed, written, err)
		}
	}
	if n, err := ledger.Count(t.Context()); n != len(all) || err != nil {
		t.Errorf("the ledger has %d orders (%v), want %d", n, err, len(all))
	}
}
