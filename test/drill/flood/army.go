package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/relais-edge/relais/demo/visitors"
)

// army is the flood: every second bot speaks HTTP/2, the others HTTP/1.1, each on a connection of its own from its
// own address.
type army struct {
	s            settings
	shape        visitors.Shape
	http1, http2 string
	began        time.Time
	rate         float64 // requests a second of visitors
	sent, served atomic.Int64
}

// farmBots is how many addresses a farm has.
const farmBots = 400

// attack sends the flood, from the end of the calm on; ctx ends it.
func (a *army) attack(ctx context.Context) {
	if a.shape == "" {
		return
	}
	n := a.s.bots
	if a.shape == visitors.Farm {
		n = min(n, farmBots)
	}
	bots := visitors.Bots(a.shape, n, netip.MustParsePrefix(network), "shop.example", false, 11)
	every := time.Duration(float64(n) / (a.rate * a.s.factor) * float64(time.Second))
	end := a.began.Add(a.s.calm + a.s.length)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var wg sync.WaitGroup
	for i, b := range bots {
		wg.Go(func() {
			if !pause(ctx, time.Until(a.began.Add(a.s.calm+every*time.Duration(i)/time.Duration(n)))) {
				return
			}
			for ctx.Err() == nil {
				a.one(ctx, b, i%2 == 1, every)
				if !pause(ctx, every) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// pause waits; false when ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// one lets a bot ask on a connection until that ends.
func (a *army) one(ctx context.Context, b *visitors.Bot, two bool, every time.Duration) {
	addr := a.http1
	if two {
		addr = a.http2
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: b.Source.AsSlice()}, Timeout: 5 * time.Second, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var ask func(visitors.Hostile) (http.Header, int, error)
	if two {
		ask = overHTTP2(c)
	} else {
		ask = overHTTP1(c)
	}
	for {
		next := time.Now().Add(every)
		if c.SetDeadline(time.Now().Add(8*time.Second)) != nil {
			return
		}
		a.sent.Add(1)
		header, status, err := ask(b.Next())
		if err != nil {
			return
		}
		if status < 400 {
			a.served.Add(1)
		}
		b.Learn(header)
		if !pause(ctx, time.Until(next)) {
			return
		}
	}
}

func overHTTP1(c net.Conn) func(visitors.Hostile) (http.Header, int, error) {
	r := bufio.NewReaderSize(c, 2<<10)
	var buf []byte
	return func(h visitors.Hostile) (http.Header, int, error) {
		buf = h.AppendHTTP1(buf[:0])
		if _, err := c.Write(buf); err != nil {
			return nil, 0, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, 0, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if resp.Close && err == nil {
			err = io.EOF
		}
		return resp.Header, resp.StatusCode, err
	}
}

// overHTTP2 sends one request at a time, with the fields of the bot in their order.
func overHTTP2(c net.Conn) func(visitors.Hostile) (http.Header, int, error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	id, begun := uint32(1), false
	return func(h visitors.Hostile) (http.Header, int, error) {
		if !begun {
			begun = true
			if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
				return nil, 0, err
			}
			if err := fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4 << 20}); err != nil {
				return nil, 0, err
			}
			if err := fr.WriteWindowUpdate(0, 1<<30); err != nil {
				return nil, 0, err
			}
		}
		block.Reset()
		for _, f := range [][2]string{{":method", h.Method}, {":scheme", "http"}, {":authority", "shop.example"}, {":path", h.Target}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		for _, f := range h.Fields {
			switch name := strings.ToLower(f[0]); name {
			case "host", "connection":
			default:
				_ = enc.WriteField(hpack.HeaderField{Name: name, Value: f[1]})
			}
		}
		err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: h.Body == ""})
		if err == nil && h.Body != "" {
			err = fr.WriteData(id, true, []byte(h.Body))
		}
		if err != nil {
			return nil, 0, err
		}
		id += 2
		return answerHTTP2(fr, id-2)
	}
}

func answerHTTP2(fr *http2.Framer, id uint32) (header http.Header, status int, err error) {
	header = http.Header{}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return header, status, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = fr.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			err = io.EOF
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" && len(h.Value) == 3 {
					status = int(h.Value[0]-'0')*100 + int(h.Value[1]-'0')*10 + int(h.Value[2]-'0')
				}
				if h.Name == "set-cookie" {
					header.Add("Set-Cookie", h.Value)
				}
			}
			if f.StreamEnded() && f.StreamID == id && status >= 200 {
				return header, status, nil
			}
		case *http2.DataFrame:
			if f.StreamEnded() && f.StreamID == id {
				return header, status, nil
			}
		}
		if err != nil {
			return header, status, err
		}
	}
}
