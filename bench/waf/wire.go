package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
	"github.com/relais-edge/relais/test/proc"
)

// goalWire is how many times as many requests a second a core of the product must do as one of nginx with ModSecurity.
const goalWire = 20

// messageOf is a request as it stands on the wire.
func messageOf(c *regression.Case) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", c.Method, c.Target, c.Proto)
	for _, f := range c.Fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("\r\n" + c.Body)
	return []byte(b.String())
}

// answer is the status of an answer, and whether it is the origin's; its body is not kept.
type answer struct {
	status int
	origin bool
	closes bool
}

func readAnswer(in *bufio.Reader, method string) (a answer, err error) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return a, err
		}
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/") {
			return a, fmt.Errorf("no answer of HTTP: %.40q", line)
		}
		if a.status, err = strconv.Atoi(f[1]); err != nil {
			return a, fmt.Errorf("no answer of HTTP: %.40q", line)
		}
		h, err := readHead(in)
		if err != nil {
			return a, err
		}
		if a.status < 200 {
			continue
		}
		a.origin, a.closes = h.fields[mark] != "", h.closes
		if method == "HEAD" || a.status == 204 || a.status == 304 {
			return a, nil
		}
		return a, h.skipBody(in)
	}
}

// connections are kept while requests are sent.
const connections = 8

// load sends every message once and fails unless the origin answered all with 200, but for one in chance that the rules refuse.
func load(ctx context.Context, addr string, messages [][]byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var refused atomic.Int64
	for k := range connections {
		wg.Go(func() {
			if err := loadOne(ctx, addr, messages, k, &refused); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// loadOne sends each message whose number is k modulo connections.
func loadOne(ctx context.Context, addr string, messages [][]byte, k int, refused *atomic.Int64) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReaderSize(c, 16<<10)
	for i := k; i < len(messages); i += connections {
		if _, err := c.Write(messages[i]); err != nil {
			return err
		}
		a, err := readAnswer(in, "GET")
		switch {
		case err != nil:
			return fmt.Errorf("answer: %w", err)
		case a.status == 403 && refused.Add(1) <= int64(len(messages)/chance):
		case a.status != 200 || !a.origin:
			return fmt.Errorf("a harmless request was answered %d", a.status)
		case a.closes:
			return errors.New("the server closes a kept connection")
		}
	}
	return nil
}

// door is one address of a server.
type door struct {
	server *server
	addr   string
	visit  int // requests
	micro  []float64
	rate   []float64 // requests a second, wall time
}

// ask visits a door once.
func (d *door) ask(ctx context.Context, messages [][]byte) error {
	pid := d.server.process.Pid()
	before, err := proc.CPU(pid)
	if err != nil {
		return err
	}
	from := time.Now()
	if err := load(ctx, d.addr, messages); err != nil {
		return fmt.Errorf("%s: %w", d.server.name, err)
	}
	took := time.Since(from)
	after, err := proc.CPU(pid)
	if err != nil {
		return err
	}
	d.micro = append(d.micro, float64((after-before).Nanoseconds())/1e3/float64(len(messages)))
	d.rate = append(d.rate, float64(len(messages))/took.Seconds())
	return nil
}

// speed compares both servers with the firewall on, over the wire.
func (s *settings) speed(ctx context.Context, w *wire, r *report, out io.Writer) error {
	r.table("Over the wire", fmt.Sprintf("HTTP/1.1, %d kept connections, one origin of 1 KB, access logs on. µs of CPU of the server's processes a request, median of %d alternating rounds (lowest-highest); a second on one core is a million divided by it; × is the median of the rounds' ratios. nginx + ModSecurity has the rules that the product embeds, answers' bodies not examined.", connections, s.rounds),
		"request", "relais µs", "nginx + ModSecurity µs", "relais a second on one core", "nginx + ModSecurity", "×", "relais without firewall µs", "nginx without µs")
	for i := range kinds {
		k := kinds[i].name
		doors := []*door{{server: w.relais, addr: w.relais.guarded, visit: 2000}, {server: w.nginx, addr: w.nginx.guarded, visit: 80}, {server: w.relais, addr: w.relais.plain, visit: 2000}, {server: w.nginx, addr: w.nginx.plain, visit: 2000}}
		messages := func(from, n int) (list [][]byte) {
			for _, c := range requestsOf(k, from, n) {
				list = append(list, messageOf(&c))
			}
			return list
		}
		for _, d := range doors {
			if err := load(ctx, d.addr, messages(1<<30, d.visit)); err != nil {
				return fmt.Errorf("%s: %s: %w", k, d.server.name, err)
			}
		}
		for round := range s.rounds {
			for n := range doors {
				d := doors[(n+round)%len(doors)]
				if err := d.ask(ctx, messages(5000*round, d.visit)); err != nil {
					return fmt.Errorf("%s: %w", k, err)
				}
			}
		}
		span := func(d *door) string {
			c := contender{micro: d.micro}
			return fmt.Sprintf("%.0f (%s)", median(d.micro), c.span())
		}
		ours, theirs := contender{micro: doors[0].micro}, contender{micro: doors[1].micro}
		times := ours.times(&theirs)
		perCore := func(d *door) string { return fmt.Sprintf("%.0f", 1e6/median(d.micro)) }
		r.row(k, span(doors[0]), span(doors[1]), perCore(doors[0]), perCore(doors[1]), fmt.Sprintf("%.1f", times), span(doors[2]), span(doors[3]))
		fmt.Fprintf(out, "wire %s: relais %.0f us, nginx + ModSecurity %.0f us, %.1f times\n", k, median(doors[0].micro), median(doors[1].micro), times)
		r.least("wire "+k+" times nginx", times, goalWire, "%.1f", fmt.Sprintf("nginx + ModSecurity %s a second on one core, relais %s", perCore(doors[1]), perCore(doors[0])))
	}
	return nil
}
