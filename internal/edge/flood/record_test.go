package flood

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/demo/visitors"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

var update = flag.Bool("update", false, "record the rise and the attack anew")

// tape is a record of what came to a site, and how full its tier was, twice a second.
type tape struct{ list []entry }

// entry is a request with its answer, or a tick.
type entry struct {
	At     int64       `json:"at"` // milliseconds
	Busy   float64     `json:"busy,omitempty"`
	Client string      `json:"client,omitempty"` // empty for a tick
	Method string      `json:"method,omitempty"`
	Target string      `json:"target,omitempty"`
	Fields [][2]string `json:"fields,omitempty"`
	Class  stage.Class `json:"class,omitempty"`
	Step   stage.Step  `json:"step,omitempty"`
	Key    uint64      `json:"key,omitempty"`
	Bot    bool        `json:"bot,omitempty"`
	Status int         `json:"status,omitempty"`
	Tries  int         `json:"tries,omitempty"`
	Full   bool        `json:"full,omitempty"`
}

func (t *tape) tick(at time.Duration, busy float64) {
	if t != nil {
		t.list = append(t.list, entry{At: at.Milliseconds(), Busy: busy})
	}
}

// request records a request. Of what only its owner may know it keeps that it was there.
func (t *tape) request(x *stage.Exchange, at time.Duration, bot bool, status int, err error) {
	if t == nil {
		return
	}
	e := entry{
		At: at.Milliseconds(), Client: x.Client.String(), Method: string(x.In.MethodName()), Target: string(x.In.Path()), Bot: bot,
		Class: x.Visitor.Class, Step: x.Visitor.Step, Status: status, Tries: x.Tries, Full: errors.Is(err, stage.ErrFull),
	}
	if e.Class == stage.Protected {
		e.Key = x.Visitor.Key
	}
	if x.In.HasQuery() {
		e.Target += "?" + string(x.In.Query())
	}
	for i := range x.In.Len() {
		id, name, value := x.In.At(i)
		v := string(value)
		if id == message.Cookie || id == message.Referer {
			v = "x"
		}
		e.Fields = append(e.Fields, [2]string{string(name), v})
	}
	t.list = append(t.list, e)
}

func (t *tape) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	z, _ := gzip.NewWriterLevel(f, gzip.BestCompression)
	enc := json.NewEncoder(z)
	for i := range t.list {
		if err := enc.Encode(&t.list[i]); err != nil {
			return err
		}
	}
	return errors.Join(z.Close(), f.Close())
}

func readTape(t *testing.T, name string) (list []entry) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(z); d.More(); {
		var e entry
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// The rise and the attack that are recorded have about as many requests. The site was recorded without any measure.
var recordings = []struct {
	name, file string
	rate       visitors.Rate
	bots       int
}{
	{"a genuine rise", "rise.json.gz", visitors.Spike(base, 5, calmFor, calmFor+recordedFor), 0},
	{"an attack", "attack.json.gz", visitors.Constant(base), 290},
}

const recordedFor = 16 * time.Second

// record plays the two once more, with -update.
func record(t *testing.T) {
	for _, r := range recordings {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			spec := short()
			spec.Mode = v1.ModeOff
			w := newWorld(t, dir, baseSlots, spec)
			w.tape = new(tape)
			bots := visitors.Bots(visitors.Swarm, r.bots, netip.MustParsePrefix("127.4.0.0/16"), "shop.example", false, 5)
			w.run(dir, r.rate, calmFor+recordedFor, func() { w.flood(bots, 1250*time.Millisecond, calmFor, calmFor+recordedFor) })
			list := w.tape.list
			for i := range list {
				if list[i].At > (calmFor + recordedFor).Milliseconds() {
					w.tape.list = list[:i]
					break
				}
			}
			if err := w.tape.write(filepath.Join("testdata", r.file)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// played is what a detector made of a record.
type played struct {
	top                   Step
	reached               time.Duration // of step limit, after the event's begin
	distance              float64
	came                  int // in the event
	learned               bool
	people, refused       int // after the first ten seconds of the event
	bots, stopped, basket int
}

// answered is the handler that answers as the record says.
type answered struct{ e *entry }

func (a answered) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	if a.e.Full {
		return nil, &stage.Error{Code: "destination_unavailable", Side: stage.SideEdge, Status: 503, Err: stage.ErrFull}
	}
	x.Tries = a.e.Tries
	x.Response.Reset()
	x.Response.Status = a.e.Status
	return &x.Response, nil
}

// replay shows a record to a new detector, with hashes of its own.
func replay(t *testing.T, list []entry) (p played) {
	b := newBed(t, short())
	b.cfg.Challenger = nil
	began := b.now
	var x stage.Exchange
	var in message.Request
	for i := range list {
		e := &list[i]
		at := time.Duration(e.At) * time.Millisecond
		b.now = began.Add(at)
		if e.Client == "" {
			b.busy = e.Busy
			b.look(b.now)
			st := b.Status("")[0]
			if step, _ := stepOf(st.Step); step > p.top {
				if p.top < Limit && step >= Limit {
					p.reached = at - calmFor
				}
				p.top = step
			}
			if p.learned = st.Learned; st.Learned {
				p.distance = max(p.distance, st.Distance)
			}
			continue
		}
		x.Reset()
		in.Reset()
		path, query, has := strings.Cut(e.Target, "?")
		in.SetMethod([]byte(e.Method))
		in.SetPath([]byte(path))
		if has {
			in.SetQuery([]byte(query))
		}
		in.Proto = message.HTTP11
		for _, f := range e.Fields {
			in.AddLine([]byte(f[0]), []byte(f[1]))
		}
		x.In, x.Site, x.Route, x.Start, x.Client = &in, b.site, &b.site.Routes[0], b.now, netip.MustParseAddr(e.Client)
		x.SetPath([]byte(path))
		x.Visitor = stage.Visitor{Class: e.Class, Step: e.Step, Key: e.Key}
		_, err := stage.Chain(answered{e}, b.Stage, cached{}, b.Gate()).Serve(t.Context(), &x)
		no := errors.Is(err, b.refusal[Limit]) || errors.Is(err, b.refusal[Drop])
		if at > calmFor {
			p.came++
		}
		switch {
		case no && e.Class == stage.Protected:
			p.basket++
		case at < calmFor+10*time.Second:
		case e.Bot:
			p.bots++
			p.stopped += count01(no)
		default:
			p.people++
			p.refused += count01(no)
		}
	}
	return p
}

// Each is shown to detectors with other hashes, so that no verdict hangs on a collision.
func TestARecordedRiseAndARecordedAttackOfTheSameSizeAreToldApart(t *testing.T) {
	if *update {
		record(t)
	}
	var came [2]int
	for i, r := range recordings {
		list := readTape(t, filepath.Join("testdata", r.file))
		for range replays {
			p := replay(t, list)
			came[i] = p.came
			t.Logf("%s: %d requests; distance %.2f, %s after %s; refused: %d of %d visitors', %d of %d bots', %d baskets'",
				r.name, p.came, p.distance, p.top, p.reached, p.refused, p.people, p.stopped, p.bots, p.basket)
			switch {
			case !p.learned:
				t.Errorf("%s: the site was not learned", r.name)
			case p.basket > 0:
				t.Errorf("%s: %d requests with a basket were refused", r.name, p.basket)
			case r.bots == 0 && (p.top != Calm || p.distance > bounds["normal"]/2):
				t.Errorf("%s: step %s, distance %.2f", r.name, p.top, p.distance)
			case r.bots > 0 && (p.top < Limit || p.reached > 8*time.Second || p.stopped*10 < p.bots*9):
				t.Errorf("%s: step %s after %s; %d of %d bots' requests refused", r.name, p.top, p.reached, p.stopped, p.bots)
			}
		}
	}
	if came[0]*4 < came[1]*3 || came[1]*4 < came[0]*3 {
		t.Errorf("the rise has %d requests, the attack %d: they are not of the same size", came[0], came[1])
	}
}
