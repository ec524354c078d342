package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	control "github.com/relais-edge/relais/internal/control/usage"
	"github.com/relais-edge/relais/internal/pop/spool"
	"github.com/relais-edge/relais/internal/usage"
)

// childRole is the variable that makes a process a child: "pop DIR SEED" or "plane DIR 0".
const childRole = "RELAIS_CRASH_USAGE"

const pop = "fra1"

// child does a child's work, if this process is one.
func child() bool {
	var role, dir string
	var seed uint64
	if k, _ := fmt.Sscan(os.Getenv(childRole), &role, &dir, &seed); k != 3 {
		return false
	}
	var err error
	if role == "pop" {
		err = count(dir, seed)
	} else {
		err = serve(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	return true
}

// say writes a line that leaves the process at once, so that SIGKILL takes none back.
func say(format string, args ...any) { _, _ = os.Stdout.Write(fmt.Appendf(nil, format+"\n", args...)) }

func spoolIn(dir string) (*spool.Spool, error) {
	return spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Pop: pop, Report: func(msg string, args ...any) {
		fmt.Fprintln(os.Stderr, append([]any{msg}, args...)...)
	}})
}

// count counts and delivers until it is killed. Each append is of a site of its own, so that it can be told whether
// it was counted, and how often.
func count(dir string, seed uint64) error {
	s, err := spoolIn(dir)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	n := uint64(0)
	take := func(now time.Time) []usage.Record {
		n++
		site, requests := fmt.Sprintf("s%d-%d", seed, n), int64(1+rng.IntN(1000))
		say("B %s %d", site, requests)
		list := []usage.Record{{Slot: usage.Slot{Organization: "acme", Site: site, Hour: usage.HourOf(now)}, Counts: usage.Counts{Requests: requests}}}
		for range rng.IntN(20) { // others beside it, so that segments differ in size
			list = append(list, usage.Record{Slot: usage.Slot{Organization: "other", Site: fmt.Sprint("o", rng.IntN(50)), Hour: usage.HourOf(now)}, Counts: usage.Counts{Requests: 1}})
		}
		return list
	}
	c := spool.NewCourier(s, take, &wire{address: filepath.Join(dir, "plane.sock")})
	say("O")
	for {
		if err := c.Collect(time.Now()); err != nil {
			return err
		}
		say("A s%d-%d", seed, n)
		if n%3 == 0 {
			_ = c.Ship(context.Background()) // the plane may be away; all stays
		}
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
	}
}

// wire delivers over a socket: a length, a batch; and back a line of JSON.
type wire struct{ address string }

type answer struct {
	Error string          `json:"error,omitempty"`
	Gap   *usage.GapError `json:"gap,omitempty"`
}

// Deliver implements spool.Deliverer.
func (w *wire) Deliver(ctx context.Context, b *usage.Batch) error {
	say("S %s %d", b.Spool, b.First())
	return w.send(ctx, b)
}

func (w *wire) send(ctx context.Context, b *usage.Batch) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", w.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	data, err := b.Append(make([]byte, 4))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	if _, err := conn.Write(data); err != nil {
		return err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return err
	}
	switch {
	case a.Gap != nil:
		return a.Gap
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// anybody lets the drill read what it wrote.
type anybody struct{}

func (anybody) Authorize(context.Context, *store.Reader, tenant.Actor, tenant.Access) error {
	return nil
}

func operatorKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func planeIn(ctx context.Context, dir string) (*store.Store, *control.Service, error) {
	s, err := store.OpenSQLite(ctx, filepath.Join(dir, "plane.db"), store.Options{Schemas: []store.Schema{control.Schema()}})
	if err != nil {
		return nil, nil, err
	}
	c, err := control.New(control.Config{Store: s, Tenants: anybody{}, Key: operatorKey()})
	return s, c, err
}

// serve takes in batches until it is killed, and makes receipts meanwhile, of days that end every few moments.
func serve(dir string) error {
	ctx := context.Background()
	_, c, err := planeIn(ctx, dir)
	if err != nil {
		return err
	}
	address := filepath.Join(dir, "plane.sock")
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	say("O")
	go func() {
		for { // a day ahead, so that use of today has receipts and corrections
			if _, err := c.Seal(ctx, nil, time.Now().Add(48*time.Hour)); err != nil {
				fmt.Fprintln(os.Stderr, "plane: seal:", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			a := take(ctx, c, conn)
			if rand.IntN(8) == 0 { // the answer is lost on its way: what was taken in comes again
				return
			}
			_ = json.NewEncoder(conn).Encode(a)
		}()
	}
}

func take(ctx context.Context, c *control.Service, conn net.Conn) (a answer) {
	in := bufio.NewReader(conn)
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return answer{Error: err.Error()}
	}
	data := make([]byte, min(binary.BigEndian.Uint32(size[:]), usage.MaxBatch))
	if _, err := io.ReadFull(in, data); err != nil {
		return answer{Error: err.Error()}
	}
	b, err := usage.ReadBatch(data)
	if err == nil {
		err = c.Ingest(ctx, pop, b)
	}
	if errors.As(err, &a.Gap) {
		return a
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}
