package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/usage"
)

// patience is how long what must come may take on a busy machine.
const patience = 2 * time.Minute

// drill is what the children said.
type drill struct {
	s   settings
	rng *rand.Rand

	mu    sync.Mutex
	begun map[string]int64 // by site: what was counted
	acked map[string]bool
	seen  map[string]bool // batches that were sent, by spool and first number

	popKills, planeKills, sent, first int
}

func newDrill(s settings) *drill {
	return &drill{s: s, rng: rand.New(rand.NewPCG(s.seed, 2)), begun: map[string]int64{}, acked: map[string]bool{}, seen: map[string]bool{}}
}

func (d *drill) hear(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "B":
		var n int64
		_, _ = fmt.Sscan(f[2], &n)
		d.begun[f[1]] = n
	case len(f) == 2 && f[0] == "A":
		d.acked[f[1]] = true
	case len(f) == 3 && f[0] == "S":
		d.sent++
		if key := f[1] + " " + f[2]; !d.seen[key] {
			d.seen[key] = true
			d.first++
		}
	}
}

// process is a child.
type process struct {
	cmd   *exec.Cmd
	heard chan struct{}
}

// spawn starts a child and returns when it is at work.
func (d *drill) spawn(ctx context.Context, role string, seed uint64) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", childRole, role, d.s.dir, seed))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	opened := make(chan struct{})
	go func() {
		defer close(p.heard)
		in := bufio.NewScanner(out)
		for in.Scan() {
			if in.Text() == "O" {
				close(opened)
				continue
			}
			d.hear(in.Text())
		}
	}()
	select {
	case <-opened:
		return p, nil
	case <-p.heard:
	case <-time.After(patience):
	}
	return nil, errors.Join(fmt.Errorf("the %s did not start", role), p.kill())
}

func (p *process) kill() error {
	err := p.cmd.Process.Kill() // SIGKILL
	<-p.heard
	_ = p.cmd.Wait()
	return err
}

// round has both at work for a while and kills one or both, in either order.
func (d *drill) round(ctx context.Context, i int) error {
	plane, err := d.spawn(ctx, "plane", 0)
	if err != nil {
		return err
	}
	counter, err := d.spawn(ctx, "pop", d.s.seed*10_000+uint64(i))
	if err != nil {
		return errors.Join(err, plane.kill())
	}
	wait := func() {
		select {
		case <-time.After(time.Duration(d.rng.Int64N(int64(d.s.most)))):
		case <-ctx.Done():
		}
	}
	wait()
	if d.rng.IntN(2) == 0 {
		plane, counter = counter, plane // the other first
	}
	err = plane.kill()
	if d.rng.IntN(2) == 0 {
		wait() // the other one goes on alone
	}
	d.popKills++
	d.planeKills++
	return errors.Join(err, counter.kill(), ctx.Err())
}

// drain delivers what is left, with nobody killed.
func (d *drill) drain(ctx context.Context) error {
	plane, err := d.spawn(ctx, "plane", 0)
	if err != nil {
		return err
	}
	s, err := spoolIn(d.s.dir)
	if err != nil {
		return errors.Join(err, plane.kill())
	}
	w := &deliverer{wire{d.s.dir + "/plane.sock"}}
	for err = ship(ctx, s, w); err != nil && ctx.Err() == nil; err = ship(ctx, s, w) {
		var gap *usage.GapError
		if errors.As(err, &gap) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(err, plane.kill())
}

// verdict is what was found in the end.
type verdict struct {
	acked, lost, wrong, invented, left int
	gaps                               int64
	receipts                           int
	receipted, counted                 int64
}

func (d *drill) judge(ctx context.Context) (v verdict, err error) {
	db, c, err := planeIn(ctx, d.s.dir)
	if err != nil {
		return v, err
	}
	defer db.Close()
	today := usage.DayOf(time.Now())
	list, err := c.Use(ctx, tenant.Actor{}, "acme", false, today-2, today+2)
	if err != nil {
		return v, err
	}
	have := map[string]int64{}
	for _, u := range list {
		have[u.Site] += u.Requests
		v.counted += u.Requests
	}
	for site, n := range have {
		want, ok := d.begun[site]
		switch {
		case !ok:
			v.invented++
		case n != want:
			v.wrong++
		}
	}
	for site := range d.acked {
		v.acked++
		if have[site] == 0 {
			v.lost++
		}
	}
	spools, err := c.Deliveries(ctx, "")
	if err != nil {
		return v, err
	}
	for _, s := range spools {
		v.gaps += s.Lost
	}
	if _, err := c.Seal(ctx, nil, time.Now().Add(96*time.Hour)); err != nil {
		return v, err
	}
	var file bytes.Buffer
	if err := c.Receipts(ctx, tenant.Actor{}, "acme", 0, &file); err != nil {
		return v, err
	}
	sum, err := usage.VerifyFile(&file, usage.NewVerifier([]ed25519.PublicKey{c.PublicKey()}))
	if err != nil {
		return v, err
	}
	v.receipts, v.receipted = sum.Receipts, sum.Total.Requests
	s, err := spoolIn(d.s.dir)
	if err != nil {
		return v, err
	}
	st, err := s.Stats()
	v.left = int(st.Records)
	return v, err
}
