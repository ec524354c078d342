package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

const slotOfTest = stage.Slot(3)

func newTestKeeper(t *testing.T, cfg KeeperConfig) (*Keeper, *Recorder) {
	t.Helper()
	m := observe.New()
	k, err := NewKeeper(slotOfTest, cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	r := New(slotOfTest, nil, nil, m)
	r.Keep(k)
	return k, r
}

// generous keeps all.
func generous() KeeperConfig {
	return KeeperConfig{Share: 1, Bytes: 1 << 20, OrgBytes: 1 << 20, OrgCount: 1000, BodyBytes: 64}
}

// running has a keeper work until stop is called.
func running(t *testing.T, k *Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func lines(t *testing.T, k *Keeper, organization string) (list []*Request) {
	t.Helper()
	var b bytes.Buffer
	if err := k.Export(&b, organization); err != nil {
		t.Fatal(err)
	}
	err := ReadRequests(&b, func(q *Request) error { list = append(list, q); return nil }, func(e *LineError) error { return e })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// chunks is a body in pieces.
type chunks []string

func (c *chunks) Next(context.Context) ([]byte, error) {
	b := (*c)[0]
	if *c = (*c)[1:]; len(*c) == 0 {
		return []byte(b), io.EOF
	}
	return []byte(b), nil
}
func (c *chunks) Close(error) {}

// one is a request with an id of its own and a body, which a stage reads as far as read says.
func one(t *testing.T, r *Recorder, n int, body []string, read int, o message.Outcome) {
	t.Helper()
	x := &stage.Exchange{In: &message.Request{ContentLength: -1}, Client: netip.MustParseAddr("192.0.2.1"), Start: time.Now()}
	x.ID = stage.RequestID{0: byte(n), 1: byte(n >> 8)}
	x.In.SetMethod([]byte("POST"))
	x.In.SetAuthority([]byte("shop.example"))
	x.In.SetPath(fmt.Appendf(nil, "/%d", n))
	x.In.AddString(message.ContentType, "text/plain")
	var inner message.Body
	if body != nil {
		c := chunks(body)
		inner = &c
		x.In.Body = inner
	}
	r.Watch(x)
	for range read {
		if _, err := x.In.Body.Next(t.Context()); err != nil {
			break
		}
	}
	r.Record(x, o)
	if x.In.Body != inner {
		t.Error("the request's body is not its own again")
	}
}

func TestBodiesAreKeptAsFarAsTheyWereReadAndUpToTheBound(t *testing.T) {
	k, r := newTestKeeper(t, generous())
	stop := running(t, k)
	one(t, r, 0, nil, 0, message.Outcome{Status: 200})
	one(t, r, 1, []string{"to be ", "or"}, 2, message.Outcome{Status: 200})
	one(t, r, 2, []string{"to be ", "or"}, 1, message.Outcome{Status: 200})
	one(t, r, 3, []string{strings.Repeat("no ", 20), strings.Repeat("no ", 20)}, 2, message.Outcome{Status: 200})
	stop()
	list := lines(t, k, "")
	if len(list) != 4 || list[0].Body != nil {
		t.Fatalf("%d requests", len(list))
	}
	for i, want := range []Body{{Text: "to be or", Size: 8}, {Text: "to be ", Size: -1, Cut: true}, {Text: strings.Repeat("no ", 22)[:64], Size: 120, Cut: true}} {
		if b := list[i+1].Body; b == nil || b.Text != want.Text || b.Size != want.Size || b.Cut != want.Cut {
			t.Errorf("%d: %+v, want %+v", i+1, b, want)
		}
	}
	if k.bodies.out != 0 || len(k.free) != stagedSlots {
		t.Errorf("%d bodies are not back, %d slots are", k.bodies.out, len(k.free))
	}
}

func TestWhatHasNoRoomIsDroppedAndCounted(t *testing.T) {
	k, r := newTestKeeper(t, generous())
	for n := range stagedSlots + 10 { // nobody hides them
		one(t, r, n, nil, 0, message.Outcome{Status: 500})
	}
	if len(k.queue) != stagedSlots || len(k.free) != 0 {
		t.Errorf("%d wait", len(k.queue))
	}
	running(t, k)()
	if list := lines(t, k, ""); len(list) != stagedSlots {
		t.Errorf("%d are kept", len(list))
	}
}

func TestOnlyTheShareIsKeptAndWhatIsNotable(t *testing.T) {
	cfg := generous()
	cfg.Share = 0
	k, r := newTestKeeper(t, cfg)
	stop := running(t, k)
	one(t, r, 1, []string{"a"}, 1, message.Outcome{Status: 200})
	one(t, r, 2, nil, 0, message.Outcome{Status: 404})
	one(t, r, 3, nil, 0, message.Outcome{Status: 200, Err: io.ErrUnexpectedEOF})
	stop()
	if list := lines(t, k, ""); len(list) != 2 || list[0].Path != "/2" || list[1].Outcome.Abort == "" || !list[1].Notable() {
		t.Errorf("%+v", list)
	}
}

func TestAnOrganizationHasItsBoundsAndFloodsWashAwayNothingOfOthers(t *testing.T) {
	line := func(n int) []byte { return []byte(strings.Repeat("x", n) + "\n") }
	s := newStore(100_000, 20_000, 50)
	s.add("small", false, line(100))
	s.add("small", true, line(200))
	for range 1000 {
		s.add("flood", true, line(900))
	}
	if k := s.orgs["flood"]; k.size[1] > 10_000 || len(k.lines[1]) < 9 {
		t.Errorf("%d bytes in %d lines", k.size[1], len(k.lines[1]))
	}
	for range 1000 {
		s.add("many", false, line(1))
	}
	if n := len(s.orgs["many"].lines[0]); n != 25 {
		t.Errorf("%d lines", n)
	}
	for i := range 50 { // more organizations than there is room for
		for range 10 {
			s.add(fmt.Sprint("org", i), false, line(900))
		}
	}
	total := int64(0)
	for _, k := range s.orgs {
		total += k.size[0] + k.size[1]
	}
	if total != s.size || total > s.most {
		t.Errorf("%d bytes, counted %d, bound %d", total, s.size, s.most)
	}
	if k := s.orgs["small"]; k == nil || len(k.lines[0]) != 1 || len(k.lines[1]) != 1 {
		t.Error("a small organization lost what it had")
	}
	s.add("huge", false, line(200_000)) // is more than all may have
	if s.size > s.most {
		t.Errorf("%d bytes", s.size)
	}
}

func TestTheFileIsBoundedAndATornLineCostsOne(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "requests.ndjson")
	line := func(n int) []byte {
		q := Request{Format: 1, ID: fmt.Sprint(n), Method: "GET", Time: Request{}.Time.AddDate(2000, 0, 0), Organization: "o"}
		b, err := q.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s, err := openSpool(name, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if err := s.write(line(n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{name, name + ".1"} {
		if info, err := os.Stat(n); err != nil || info.Size() > 2048 {
			t.Errorf("%s: %v, %v", n, info.Size(), err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	read := func() (ids []string) {
		s, err := openSpool(name, 4096)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := s.read(func(org string, _ bool, line []byte) {
			q, err := parseRequest(bytes.TrimSpace(line))
			if err != nil || org != "o" {
				t.Errorf("%s: %v", line, err)
				return
			}
			ids = append(ids, q.ID)
		}); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	all := read()
	if len(all) < 10 || all[len(all)-1] != "99" {
		t.Fatalf("%v", all)
	}
	// A process is killed wherever it was in its last line.
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for end := start; end < len(whole); end++ {
		if err := os.WriteFile(name, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openSpool(name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.write(line(1000)), s.close()); err != nil {
			t.Fatal(err)
		}
		got := read()
		want := len(all) // without the torn one, and with the new one
		if end == len(whole)-1 {
			want++ // only its end was missing
		}
		if len(got) != want || got[len(got)-1] != "1000" {
			t.Fatalf("cut at %d of %d: %v", end, len(whole), got)
		}
	}
}

func TestTheKeyStaysOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	a, err := recordKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := recordKey(dir)
	if err != nil || a != b || a == [32]byte{} {
		t.Errorf("%x %x %v", a, b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestManyAtOnce(t *testing.T) {
	k, r := newTestKeeper(t, generous())
	stop := running(t, k)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range 100 {
				one(t, r, g*100+n, []string{"some ", "text"}, 2, message.Outcome{Status: 200 + 300*(n%2)})
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			_ = k.Export(io.Discard, "")
		}
	})
	wg.Wait()
	stop()
	for _, q := range lines(t, k, "") {
		if q.Body == nil || q.Body.Text != "some text" {
			t.Fatalf("%+v", q.Body)
		}
	}
	if k.bodies.out != 0 || len(k.free) != stagedSlots {
		t.Errorf("%d bodies are not back, %d slots are", k.bodies.out, len(k.free))
	}
}

func TestBytesThatWereNoRequestCanBeExplained(t *testing.T) {
	ring := NewRing(64)
	r := New(slotOfTest, nil, ring, observe.New())
	id := stage.RequestID{7}
	r.Refused(&message.Conn{Client: netip.MustParseAddr("192.0.2.9")}, id, 400, "http_request_error", "a field has no name")
	e, ok := ring.Find(id)
	if !ok || e.Status != 400 || e.Client != "192.0.2.9" || e.Cause != "a field has no name" || e.Side != "client" || len(e.Decisions) != 1 {
		t.Errorf("%+v %v", e, ok)
	}
}

func TestAnExplanationNamesTheRevision(t *testing.T) {
	ring := NewRing(64)
	r := New(slotOfTest, nil, ring, observe.New())
	r.SetRevision("first")
	one(t, r, 1, nil, 0, message.Outcome{Status: 500})
	r.SetRevision("second")
	if e := ring.Last(1)[0]; e.Revision != "first" {
		t.Errorf("%q", e.Revision)
	}
}

func TestAnHTTPArchiveIsRead(t *testing.T) {
	list, err := ReadHAR(strings.NewReader(`{"log":{"entries":[
	 {"startedDateTime":"2031-01-02T03:04:05.5Z","time":12.5,"request":{"method":"POST","url":"https://shop.example/a%20b?x=1","httpVersion":"h2",
	  "headers":[{"name":":path","value":"/a"},{"name":"Accept","value":"*/*"}],"postData":{"text":"a=1"}},
	  "response":{"status":200,"headers":[{"name":"Content-Encoding","value":"br"},{"name":"Cache-Control","value":"max-age=5"}],"content":{"size":77}}},
	 {"startedDateTime":"2031-01-02T03:04:06Z","request":{"method":"GET","url":"data:text/plain,x"}}]}}`))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	q := list[0]
	if q.Authority != "shop.example" || q.Path != "/a%20b" || q.Query == nil || *q.Query != "x=1" || q.Proto != "HTTP/2" || !q.Secure ||
		len(q.Fields) != 1 || len(q.Answer.Fields) != 1 || q.Answer.Bytes != 77 || string(q.Body.Bytes()) != "a=1" || q.Millis != 12.5 {
		t.Errorf("%+v", q)
	}
	if _, ok := stage.ParseRequestID(q.ID); !ok {
		t.Errorf("id %q", q.ID)
	}
	if _, err := ReadHAR(strings.NewReader("no")); err == nil {
		t.Error("text that is no archive was read")
	}
}
