package e2e

import (
	"bytes"
	bigendian "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// flood is a client that does one thing as fast as it can. Next gives the frames of a stream.
type flood struct {
	kind  string // its name
	kinds string // what the metric may call it, as a regular expression
	next  func(f *http2.Framer, id uint32, head []byte)
}

// floods are a rapid reset (CVE-2023-44487) and a CONTINUATION flood (CVE-2024-27316).
var floods = []flood{
	// Resets that outrun the handlers show as streams over the limit.
	{kind: "reset", kinds: "reset|refused", next: func(f *http2.Framer, id uint32, head []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndStream: true, EndHeaders: true})
		_ = f.WriteRSTStream(id, http2.ErrCodeCancel)
	}},
	{kind: "continuation", kinds: "continuation", next: func(f *http2.Framer, id uint32, head []byte) {
		if id == 1 {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndStream: true})
		}
		_ = f.WriteContinuation(1, false, []byte{0, 1, 'a', 1, 'b'})
	}},
}

// run floods over one connection until the edge closes it, and says whether a GOAWAY with
// ENHANCE_YOUR_CALM came.
func (fl flood) run(addr string) (calm bool, err error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	told := make(chan bool, 1)
	go func() { told <- saysCalm(nc) }()
	var b, head bytes.Buffer
	f := http2.NewFramer(&b, nil)
	enc := hpack.NewEncoder(&head)
	for _, h := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "shop.example"}, {Name: ":path", Value: "/flood"}} {
		_ = enc.WriteField(h)
	}
	b.WriteString(http2.ClientPreface)
	_ = f.WriteSettings()
	for id := uint32(1); ; {
		for range 50 {
			fl.next(f, id, head.Bytes())
			id += 2
		}
		if _, err := nc.Write(b.Bytes()); err != nil {
			return <-told, nil // the edge has closed
		}
		b.Reset()
	}
}

// saysCalm reads to the end, by hand: the frames must not be judged by the library.
func saysCalm(r io.Reader) bool {
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(r, head); err != nil {
			return false
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, body); err != nil {
			return false
		}
		if http2.FrameType(head[3]) == http2.FrameGoAway && len(body) >= 8 &&
			http2.ErrCode(bigendian.BigEndian.Uint32(body[4:])) == http2.ErrCodeEnhanceYourCalm {
			return true
		}
	}
}

// While some clients flood, each request of the others is answered.
func TestAFloodOfHTTP2CostsTheOthersNothing(t *testing.T) {
	for _, fl := range floods {
		t.Run(fl.kind, func(t *testing.T) {
			addr := ports(t, 2)
			back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
			file := filepath.Join(t.TempDir(), "edge.yaml")
			write(t, file, fmt.Sprintf(plain, addr[0], "0", back))
			start(t, addr[0], nil, "serve", "-f", file, "--metrics", addr[1])

			var closed, calm, good atomic.Int64
			var wg sync.WaitGroup
			until := time.Now().Add(2 * time.Second)
			for range 4 {
				wg.Go(func() {
					for time.Now().Before(until) {
						ok, err := fl.run(addr[0])
						if err != nil {
							t.Error(err)
							return
						}
						if closed.Add(1); ok {
							calm.Add(1)
						}
					}
				})
			}
			for _, proto := range []string{"http1", "h2c"} {
				wg.Go(func() {
					for c := clients()[proto]; time.Now().Before(until); {
						resp, err := c.Get("http://" + addr[0] + "/")
						if err != nil {
							t.Error(proto, ": ", err)
							continue
						}
						b, err := io.ReadAll(resp.Body)
						if resp.Body.Close(); resp.StatusCode != 200 || string(b) != "ok" || err != nil {
							t.Errorf("%s: %d %q %v", proto, resp.StatusCode, b, err)
							continue
						}
						good.Add(1)
					}
				})
			}
			wg.Wait()
			if closed.Load() == 0 || good.Load() < 10 {
				t.Errorf("%d floods ended, %d answers: the test proves little", closed.Load(), good.Load())
			}
			if calm.Load() != closed.Load() {
				t.Errorf("of %d floods %d were told ENHANCE_YOUR_CALM", closed.Load(), calm.Load())
			}
			_, body := get(t, "http://"+addr[1]+"/metrics")
			if n := abused(body, fl.kinds); n != closed.Load() {
				t.Errorf("the metric says %d of %d floods", n, closed.Load())
			}
			t.Logf("%d floods ended, %d answers beside them", closed.Load(), good.Load())
		})
	}
}

// abused sums the connections that were closed for these kinds of abuse.
func abused(metrics, kinds string) (sum int64) {
	for _, m := range regexp.MustCompile(`relais_listener_http2_abuse_total\{[^}]*kind="(?:`+kinds+`)"[^}]*\} (\d+)`).FindAllStringSubmatch(metrics, -1) {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		sum += n
	}
	return sum
}
