// Package warm kills a whole edge with SIGKILL while it stores answers on a disk, starts it anew, and asks it
// for what it stored: how much is still a hit, and whether each body is that of its URL.
package warm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// Config says what is killed, and how often.
type Config struct {
	Server  Server
	Dir     string // an empty folder
	Rounds  int
	Objects int           // URLs
	Load    time.Duration // how long an edge is asked before it is killed, at the most
	Seed    uint64
}

// Result is what came of it.
type Result struct {
	Kills, Answers int
	// Corrupt are bodies, before a kill or after, that are not those of their URL.
	Corrupt int
	// Expected were stored more than a second before a kill, and Lost of them were no hits after it.
	Expected, Lost int
	// Ready is the slowest start, from exec to a connection.
	Ready time.Duration
}

// Server is a cache that is killed. Prepare writes what it needs into a folder, and says how it is started there so that
// it listens on addr, and asks the origin at the other address.
type Server struct {
	Name    string
	Prepare func(dir, addr, origin string) (proc.Spec, error)
	// Tells says that answers have Cache-Status, by which a hit is known. Of others one is known by an origin that refuses.
	Tells bool
}

// Relais is the product, of the program with that path.
func Relais(program string) Server {
	return Server{Name: "relais", Tells: true, Prepare: func(dir, addr, origin string) (proc.Spec, error) {
		file := filepath.Join(dir, "edge.yaml")
		return proc.Spec{
			Name: "relais serve", Core: proc.AnyCore, Log: filepath.Join(dir, "log"), Env: []string{"RELAIS_DATA=" + filepath.Join(dir, "data")},
			Args: []string{program, "serve", "-f", file, "--cache-memory", "8MiB", "--cache-disk", filepath.Join(dir, "cache"), "--cache-disk-size", "256MiB"},
		}, os.WriteFile(file, fmt.Appendf(nil, documents, addr, origin), 0o600)
	}}
}

const documents = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec: {hostnames: ["*"], cache: c, routes: [{pool: o}]}
---
apiVersion: relais/v1
kind: CachePolicy
metadata: {name: c}
spec: {guard: "off"}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

type drill struct {
	Config
	spec proc.Spec
	addr string
	shut atomic.Bool // the origin refuses
	mu   sync.Mutex
	said map[int]time.Time // when a URL was first answered whole
	r    Result
}

// Run drills until all rounds are done.
func Run(ctx context.Context, cfg Config) (Result, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return Result{}, err
	}
	d := &drill{Config: cfg, said: map[int]time.Time{}}
	srv := &http.Server{Handler: http.HandlerFunc(d.origin), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	port, err := proc.Ports(1)
	if err != nil {
		return Result{}, err
	}
	d.addr = proc.Addr(port[0])
	if d.spec, err = cfg.Server.Prepare(cfg.Dir, d.addr, ln.Addr().String()); err != nil {
		return Result{}, err
	}
	rng := rand.New(rand.NewPCG(cfg.Seed, 7))
	for i := range cfg.Rounds {
		if err := d.round(ctx, rng.Uint64()); err != nil {
			return d.r, fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return d.r, nil
}

// round starts an edge, asks for what is said to be there, goes on asking, and kills it.
func (d *drill) round(ctx context.Context, seed uint64) error {
	begun := time.Now()
	p, err := proc.Start(d.spec)
	if err != nil {
		return err
	}
	defer p.Stop(10 * time.Second)
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitListen(wait, d.addr); err != nil {
		return err
	}
	d.r.Ready = max(d.r.Ready, time.Since(begun))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	if err := d.check(ctx, client); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	stop := time.Now().Add(d.Load/2 + time.Duration(rng.Int64N(int64(d.Load/2))))
	load, end := context.WithDeadline(ctx, stop)
	defer end()
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() { d.ask(load, client, rand.New(rand.NewPCG(seed, w+2))) })
	}
	<-load.Done()
	at := time.Now()
	if err := syscall.Kill(-p.Pid(), syscall.SIGKILL); err != nil { // with all its processes, while answers are on their way
		return err
	}
	<-p.Done()
	wg.Wait()
	d.r.Kills++
	for n, t := range d.said {
		if t.After(at.Add(-time.Second)) {
			delete(d.said, n) // it may be there or not
		}
	}
	return ctx.Err()
}

// ask asks for URLs at random.
func (d *drill) ask(ctx context.Context, client *http.Client, rng *rand.Rand) {
	for ctx.Err() == nil {
		n := rng.IntN(d.Objects)
		whole, same, status, err := d.get(context.WithoutCancel(ctx), client, n, "")
		d.mu.Lock()
		if err == nil {
			d.r.Answers++
		}
		if !same {
			d.r.Corrupt++
		}
		if _, ok := d.said[n]; whole && !ok && (!d.Server.Tells || strings.Contains(status, "; stored") || strings.Contains(status, "; hit")) {
			d.said[n] = time.Now()
		}
		d.mu.Unlock()
		if err != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// check asks for all that must be there, of the store only.
func (d *drill) check(ctx context.Context, client *http.Client) error {
	d.shut.Store(!d.Server.Tells)
	defer d.shut.Store(false)
	for n := range d.said {
		whole, same, status, err := d.get(ctx, client, n, "only-if-cached")
		if err != nil && status == "" && d.Server.Tells { // a peer that fails then is one that has lost it
			return err
		}
		d.r.Expected++
		if !same {
			d.r.Corrupt++
		}
		if !whole || d.Server.Tells && !strings.Contains(status, "; hit") {
			d.r.Lost++
			delete(d.said, n)
		}
	}
	return nil
}

// get asks for one. Same says that what came of the body is the beginning of what it is, and whole that all came.
func (d *drill) get(ctx context.Context, client *http.Client, n int, control string) (whole, same bool, status string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/%d", d.addr, n), nil)
	if err != nil {
		return false, true, "", err
	}
	if control != "" && d.Server.Tells {
		req.Header.Set("Cache-Control", control)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, true, "", err
	}
	defer resp.Body.Close()
	status = resp.Header.Get("Cache-Status")
	if resp.StatusCode != http.StatusOK {
		return false, true, "no", errors.New(resp.Status)
	}
	got, err := io.ReadAll(resp.Body)
	want := bodyOf(n)
	return err == nil && len(got) == len(want), strings.HasPrefix(want, string(got)), status, err
}

func (d *drill) origin(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil {
		http.NotFound(w, r)
		return
	}
	if d.shut.Load() {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=86400")
	w.Header().Set("Content-Type", "application/octet-stream")
	if n%3 == 0 {
		w.Header().Set("Vary", "Accept-Language")
	}
	_, _ = io.WriteString(w, bodyOf(n))
}

// bodyOf is the one body of a URL: small for the most part, and now and then of many blocks.
func bodyOf(n int) string {
	rng := rand.New(rand.NewPCG(uint64(n), 99))
	size := 100 + rng.IntN(8000)
	if n%50 == 0 {
		size = rng.IntN(600_000)
	}
	b := make([]byte, size)
	for i := 0; i < len(b); i += 8 {
		v := rng.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return string(b)
}
