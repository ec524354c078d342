package jwt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/observe"
)

func remotePolicy(url string) *v1.JwtPolicySpec {
	return policyOf(v1.JwtIssuer{JWKS: &v1.JwtKeys{URL: url, Refresh: v1.Duration(10 * time.Minute)}})
}

// A change that is prepared and then fails leaves the old documents in service, with their keys.
func TestKeysOfWhatIsServedStayFreshWhenAChangeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s1, s2 := newSigner(t, "k1"), newSigner(t, "k2")
		ib := newIssuerBed(t)
		defer ib.cancel()
		ib.publish(keysOf(s1))
		old := &bundle.Bundle{Sites: []*bundle.Site{ib.site.Spec}}
		ib.Prepare(&bundle.Bundle{Sites: []*bundle.Site{{Key: "o/other", JWT: map[string]*v1.JwtPolicySpec{"p": remotePolicy("https://other.example/keys")}}}})
		if n := len(ib.keys.list()); n != 2 {
			t.Errorf("%d key sets while the change is under way", n)
		}
		ib.Sweep(old) // it failed
		if n := len(ib.keys.list()); n != 1 {
			t.Errorf("%d key sets after it", n)
		}
		ib.publish(keysOf(s2))
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		bearer := "Authorization: Bearer " + s2.sign(map[string]any{"exp": in(time.Hour)})
		if status, mark := ib.ask(ib.exchange("/", bearer)); status != 200 {
			t.Errorf("the new key is not known: %d %q", status, mark.Detail)
		}
		ib.Sweep(&bundle.Bundle{})
		if n := len(ib.keys.list()) + len(ib.keys.kept); n != 0 {
			t.Errorf("%d key sets of nobody", n)
		}
	})
}

func TestAPolicyThatIsOffFetchesNoKeys(t *testing.T) {
	spec := remotePolicy("https://auth.example/keys")
	spec.Mode = v1.ModeOff
	b := newBed(t, Config{}, spec)
	if n := len(b.keys.list()); n != 0 {
		t.Errorf("%d key sets", n)
	}
	if status, _ := b.ask(b.exchange("/")); status != 200 {
		t.Errorf("status %d", status)
	}
}

// In shadow a request is not held up by an issuer that does not answer.
func TestInShadowNoTokenWaitsForKeys(t *testing.T) {
	for mode, want := range map[v1.Mode]time.Duration{v1.ModeShadow: 0, v1.ModeEnforce: askWait} {
		synctest.Test(t, func(t *testing.T) {
			spec := remotePolicy("https://auth.example/keys")
			spec.Mode = mode
			b := newBed(t, Config{fetch: func(ctx context.Context, _ *remote) ([]byte, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}, spec)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- b.Run(ctx) }()
			synctest.Wait()
			x := b.exchange("/", "Authorization: Bearer "+newSigner(t, "k").sign(map[string]any{"exp": in(time.Hour)}))
			from := time.Now()
			b.ask(x)
			if took := time.Since(from); took != want {
				t.Errorf("%s: waited %v, want %v", mode, took, want)
			}
			cancel()
			<-done
		})
	}
}

// One organization's addresses that hang do not keep another's keys from being fetched.
func TestFetchesAreBoundedByOrganization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		under, most, fetched := 0, 0, false
		st := New(Config{fetch: func(ctx context.Context, r *remote) ([]byte, error) {
			if r.org == "good" {
				mu.Lock()
				fetched = true
				mu.Unlock()
				return nil, errors.New("nothing to see")
			}
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			under--
			mu.Unlock()
			return nil, ctx.Err()
		}}, observe.New())
		add := func(org string, n int) {
			site := &bundle.Site{Key: bundle.NewKey(org, "s"), JWT: map[string]*v1.JwtPolicySpec{}}
			for i := range n {
				site.JWT[fmt.Sprint(i)] = remotePolicy(fmt.Sprintf("https://auth.example/%d", i))
			}
			st.Prepare(&bundle.Bundle{Sites: []*bundle.Site{site}})
		}
		add("slow", maxEach+10)
		if n := len(st.keys.list()); n != maxEach {
			t.Errorf("%d key sets of one organization", n)
		}
		add("good", 1)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- st.Run(ctx) }()
		synctest.Wait()
		mu.Lock()
		if !fetched || most != fetchEach {
			t.Errorf("the other's keys were fetched: %v; %d at once", fetched, most)
		}
		mu.Unlock()
		cancel()
		if <-done; len(st.keys.busy) != 1 || st.keys.busy[all] != 0 {
			t.Errorf("places that were not given back: %v", st.keys.busy)
		}
	})
}
