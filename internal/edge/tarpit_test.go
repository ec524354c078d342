package edge

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestARefusalIsHeldBackAsLongAsItSaysAndNotWhenTheClientIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := newFront(client{}, func(*stage.Exchange) (*message.Response, error) {
			return nil, &stage.Error{Code: "http_request_denied", Status: 429, Tarpit: 2 * time.Second}
		})
		began := time.Now()
		resp := f.Serve(context.Background(), request())
		if took := time.Since(began); took < 2*time.Second || took >= 4*time.Second || resp.Status != 429 {
			t.Errorf("%d after %v", resp.Status, took)
		}
		if v := resp.Get(message.Connection); string(v) == "close" {
			t.Error("the connection is closed though there was room")
		}
		gone, leave := context.WithTimeout(context.Background(), time.Second)
		defer leave()
		began = time.Now()
		if f.Serve(gone, request()); time.Since(began) != time.Second {
			t.Errorf("who is gone was waited for %v", time.Since(began))
		}
	})
}

func TestTheTarpitHasALimitAndClosesTheConnectionsOfTheRest(t *testing.T) {
	f, _ := newFront(client{}, func(*stage.Exchange) (*message.Response, error) {
		return nil, &stage.Error{Code: "http_request_denied", Status: 429, Tarpit: time.Hour}
	})
	f.tarpit.n.Store(maxTarpit)
	resp := f.Serve(context.Background(), request())
	if v := resp.Get(message.Connection); string(v) != "close" || resp.Status != 429 {
		t.Errorf("%d, Connection %q", resp.Status, v)
	}
	if n := f.tarpit.n.Load(); n != maxTarpit {
		t.Errorf("%d count as held", n)
	}
}
