package admin

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

type known map[stage.RequestID]string

func (k known) Explain(id stage.RequestID) (any, bool) { v, ok := k[id]; return v, ok }
func (k known) Recent(n int) any                       { return n }

func TestPoolsAreTold(t *testing.T) {
	c := start(t, filepath.Join(t.TempDir(), "a.sock"))
	var pools []string
	if err := c.Get(t.Context(), "/pools", &pools); err != nil || len(pools) != 1 || pools[0] != "shop" {
		t.Errorf("%v, %v", pools, err)
	}
}

func TestTheRecordedLoadOfAPoolIsTold(t *testing.T) {
	c := start(t, filepath.Join(t.TempDir(), "a.sock"))
	for target, want := range map[string]string{"/load?pool=demo%2Fshop": "demo/shop", "/load": ""} {
		var key string
		if err := c.Get(t.Context(), target, &key); err != nil || key != want {
			t.Errorf("%s: %q, %v", target, key, err)
		}
	}
}

func start(t *testing.T, path string) *Client {
	t.Helper()
	s := New(Config{Path: path, Explain: known{{7}: "seven"}, Metrics: observe.New(), Status: func() Status { return Status{Version: "test"} }, Pools: func() any { return []string{"shop"} }, Load: func(key string) any { return key }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	c := NewClient(path)
	for {
		var st Status
		if err := c.Get(t.Context(), "/status", &st); err == nil {
			return c
		}
		select {
		case err := <-done:
			done <- err
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestExplainByID(t *testing.T) {
	c := start(t, filepath.Join(t.TempDir(), "a.sock"))
	var got string
	if err := c.Get(t.Context(), "/explain/"+stage.RequestID{7}.String(), &got); err != nil || got != "seven" {
		t.Errorf("%q, %v", got, err)
	}
	for target, want := range map[string]string{"/explain/short": "26 characters", "/explain/" + stage.RequestID{8}.String(): "too old"} {
		if err := c.Get(t.Context(), target, &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
	var n int
	if err := c.Get(t.Context(), "/explain?last=100000", &n); err != nil || n != maxRecent {
		t.Errorf("last: %d, %v", n, err)
	}
}

func TestASocketInUseIsRefusedAndALeftOneReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	start(t, path)
	err = New(Config{Path: path, Metrics: observe.New()}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("second server: %v", err)
	}
	err = NewClient(path+".none").Get(t.Context(), "/status", nil)
	if err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("no server: %v", err)
	}
}
