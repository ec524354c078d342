package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/relais-edge/relais/internal/edge/waf/regression"
)

// goalAgreement is the share of verdicts that are stock Coraza's, in percent.
const goalAgreement = 100

// verdict is what became of a request.
type verdict uint8

const (
	passed verdict = iota
	denied         // by the firewall: 403
	early          // refused before the firewall, as HTTP that is malformed or not taken
)

// outcome is a verdict and what was seen of it.
type outcome struct {
	verdict verdict
	text    string
}

// framed is what the message's framing delivers of a body, as HTTP/1.1 reads it. ok is false when the framing is wrong
// or the body is not all there.
func framed(c *regression.Case) (body string, ok bool) {
	length, chunked := -1, false
	for _, f := range c.Fields {
		switch strings.ToLower(f.Name) {
		case "content-length":
			n, err := strconv.Atoi(f.Value)
			if err != nil || n < 0 || length >= 0 {
				return c.Body, false
			}
			length = n
		case "transfer-encoding":
			if chunked || !strings.EqualFold(f.Value, "chunked") {
				return c.Body, false
			}
			chunked = true
		}
	}
	switch {
	case chunked && length >= 0:
		return c.Body, false
	case chunked:
		return unchunked(c.Body)
	case length > len(c.Body):
		return c.Body, false
	}
	return c.Body[:max(length, 0)], true
}

func unchunked(raw string) (string, bool) {
	var b strings.Builder
	for rest := raw; ; {
		size, after, found := strings.Cut(rest, "\r\n")
		size, _, _ = strings.Cut(size, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if !found || err != nil || int(n) > len(after) {
			return raw, false
		}
		if n == 0 {
			return b.String(), true
		}
		b.WriteString(after[:n])
		rest = strings.TrimPrefix(after[n:], "\r\n")
	}
}

// send puts a request on a connection of its own and reads what becomes of it.
func send(ctx context.Context, addr string, c *regression.Case, whole bool) outcome {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return outcome{early, err.Error()}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(messageOf(c)); err != nil {
		return outcome{early, "closed while it was sent"}
	}
	if tcp, ok := conn.(*net.TCPConn); ok && !whole {
		_ = tcp.CloseWrite() // the server would wait for the rest
	}
	a, err := readAnswer(bufio.NewReader(conn), c.Method)
	switch {
	case a.status == 403 && !a.origin:
		return outcome{denied, "403"}
	case a.origin:
		return outcome{passed, "passed"}
	case a.status > 0:
		return outcome{early, strconv.Itoa(a.status)}
	case err == io.EOF:
		return outcome{early, "closed without an answer"}
	}
	return outcome{early, fmt.Sprint(err)}
}

// sendAll asks a server about all requests.
func sendAll(ctx context.Context, addr string, cases []regression.Case) []outcome {
	got := make([]outcome, len(cases))
	var at atomic.Int64
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for i := int(at.Add(1)) - 1; i < len(cases) && ctx.Err() == nil; i = int(at.Add(1)) - 1 {
				_, whole := framed(&cases[i])
				got[i] = send(ctx, addr, &cases[i], whole)
			}
		})
	}
	wg.Wait()
	return got
}

// agreement compares verdicts over the wire with stock Coraza's own, on all requests of the rule set's tests.
func (s *settings) agreement(ctx context.Context, w *wire, r *report, out io.Writer) error {
	cases, err := regression.Cases()
	if err != nil {
		return err
	}
	stock, err := newEngine(1, false)
	if err != nil {
		return err
	}
	want := make([]verdict, len(cases))
	for i := range cases {
		body, _ := framed(&cases[i])
		it, err := stock.judge(&cases[i], []byte(body), "127.0.0.1")
		if err != nil {
			return err
		}
		if it != nil {
			want[i] = denied
		}
	}
	r.table("Agreement with stock Coraza", fmt.Sprintf("All %d requests of the rule set's regression tests at level 1, each on a connection of its own. Stock Coraza judges in process what the framing delivers. Early are requests that the server refused or gave up before the firewall; they agree with nothing and are not counted.", len(cases)),
		"server", "compared", "agree", "agree %", "differ: let pass", "differ: refused", "early")
	var percents [2]float64
	for i, v := range []*server{w.relais, w.nginx} {
		got := sendAll(ctx, v.guarded, cases)
		if err := ctx.Err(); err != nil {
			return err
		}
		t := tally(cases, want, got)
		percent := 100 * float64(t.agree) / float64(max(t.compared, 1))
		r.row(v.name, fmt.Sprint(t.compared), fmt.Sprint(t.agree), fmt.Sprintf("%.2f", percent), fmt.Sprint(len(t.loose)), fmt.Sprint(len(t.strict)), fmt.Sprint(len(cases)-t.compared))
		fmt.Fprintf(out, "agreement %s: %d of %d, %d early\n", v.name, t.agree, t.compared, len(cases)-t.compared)
		t.list(out, v.name)
		percents[i] = percent
		r.details = append(r.details, t.markdown(v.name))
	}
	r.least("agreement %", percents[0], goalAgreement, "%.2f", fmt.Sprintf("nginx + ModSecurity %.2f %%", percents[1]))
	return nil
}

// tallies are what came out for a server.
type tallies struct {
	compared, agree int
	loose, strict   []string       // names of requests that passed or were refused against stock Coraza
	early           map[string]int // by what was seen
}

func tally(cases []regression.Case, want []verdict, got []outcome) tallies {
	t := tallies{early: map[string]int{}}
	for i := range cases {
		switch {
		case got[i].verdict == early:
			t.early[got[i].text]++
			continue
		case got[i].verdict == want[i]:
			t.agree++
		case got[i].verdict == passed:
			t.loose = append(t.loose, cases[i].Name)
		default:
			t.strict = append(t.strict, cases[i].Name)
		}
		t.compared++
	}
	return t
}

// list prints what differs, for who wants to look at it.
func (t *tallies) list(out io.Writer, server string) {
	for _, l := range []struct {
		about string
		names []string
	}{{"lets pass what stock Coraza refuses", t.loose}, {"refuses what stock Coraza lets pass", t.strict}} {
		if len(l.names) > 0 {
			fmt.Fprintf(out, "  %s %s: %s\n", server, l.about, strings.Join(l.names, " "))
		}
	}
}

// markdown says what differs and what was refused early.
func (t *tallies) markdown(server string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, refused early:", server)
	for _, k := range slices.Sorted(maps.Keys(t.early)) {
		fmt.Fprintf(&b, " %s: %d;", k, t.early[k])
	}
	fmt.Fprintf(&b, " against stock Coraza it let pass: %s; it refused: %s.", some(t.loose), some(t.strict))
	return b.String()
}

func some(names []string) string {
	const most = 60
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], " ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, " ")
}
