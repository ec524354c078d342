package smug

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen gives a listener that the test closes.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// lanes starts n recorders, each behind a proxy that start makes.
func lanes(t *testing.T, n int, start func(origin string) string) []Lane {
	t.Helper()
	var all []Lane
	for range n {
		l, rec := listen(t), NewRecorder()
		go func() { _ = rec.Serve(t.Context(), l) }()
		addr := start(l.Addr().String())
		all = append(all, Lane{HTTP1: addr, HTTP2: addr, Recorder: rec})
	}
	return all
}

func verdicts(r Report) map[Verdict]int {
	n := map[Verdict]int{}
	for _, x := range r.Results {
		n[x.Verdict]++
	}
	return n
}

// sloppyProxy forwards heads as they came and knows only Content-Length.
func sloppyProxy(client net.Conn, origin string) {
	defer client.Close()
	server, err := net.Dial("tcp", origin)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
	br := bufio.NewReader(client)
	for {
		head, length := "", 0
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			head += line
			if name, value, _ := strings.Cut(strings.ToLower(line), ":"); strings.Contains(name, "content-length") {
				length, _ = strconv.Atoi(strings.Trim(value, " \r\n"))
			}
			if strings.Trim(line, "\r\n") == "" {
				break
			}
		}
		_, _ = io.WriteString(server, head)
		_, _ = io.CopyN(server, br, int64(length))
	}
}

func TestASloppyProxyIsCaught(t *testing.T) {
	proxies := lanes(t, 4, func(origin string) string {
		l := listen(t)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go sloppyProxy(conn, origin)
			}
		}()
		return l.Addr().String()
	})
	report, err := Run(t.Context(), proxies, Options{
		Quiet: 50 * time.Millisecond, Patience: 250 * time.Millisecond,
		Pick: func(c Case) bool { return c.H2 == nil && c.Group() != "header" && c.Group() != "reqline" },
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Dead {
		t.Error("reported as dead although it answers")
	}
	n := verdicts(report)
	if n[Smuggled] < 15 || n[Forwarded] < 20 || n[Pass] < 5 {
		t.Errorf("verdicts %v: the proxy smuggles and forwards most of these cases", n)
	}
	for _, r := range report.Results {
		if r.Name == "cl-te/cl.te-connection-te" && r.Verdict != Smuggled {
			t.Errorf("%s is %s (%v), want SMUGGLE", r.Name, r.Verdict, r.Requests)
		}
		if r.Name == "cl-form/underscore-alone" && r.Verdict != Forwarded {
			t.Errorf("%s is %s (%v), want FWD", r.Name, r.Verdict, r.Findings)
		}
	}
}

func TestADeadProxyIsNotSafe(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	report, err := Run(t.Context(), []Lane{{HTTP1: l.Addr().String(), Recorder: NewRecorder()}}, Options{
		Pick: func(c Case) bool { return c.Group() == "baseline" },
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := verdicts(report); !report.Dead || n[Fail] != 10 {
		t.Errorf("dead %v, verdicts %v: want every case that must be served to fail", report.Dead, n)
	}
}

// The proxy of the standard library is known to serve the baseline and to
// refuse most of the rest, on both protocols.
func TestAnHonestProxyPasses(t *testing.T) {
	proxies := lanes(t, 2, func(origin string) string {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: origin})
		proxy.ErrorLog = log.New(io.Discard, "", 0)
		s := httptest.NewUnstartedServer(proxy)
		s.Config.ErrorLog = proxy.ErrorLog
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	})
	report, err := Run(t.Context(), proxies, Options{
		Quiet: 50 * time.Millisecond,
		Pick:  func(c Case) bool { return c.Group() == "baseline" || c.Group() == "h2-downgrade" },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		// net/http does not skip an empty line before a request, which RFC 9112 2.2 asks for.
		if strings.HasPrefix(r.Name, "baseline/") && r.Verdict != Pass && r.Name != "baseline/leading-crlf" {
			t.Errorf("%s: %s %v %v", r.Name, r.Verdict, r.Statuses, r.Findings)
		}
		if r.Name == "h2-downgrade/ok-cl" && (r.Verdict != Pass || len(r.Statuses) != 1 || r.Statuses[0] != 200) {
			t.Errorf("%s: %s %v, want 200", r.Name, r.Verdict, r.Statuses)
		}
	}
	if n := verdicts(report); n[Pass] < 48 || n[Smuggled] != 0 {
		t.Errorf("verdicts %v, want at least 48 of 57 passed and nothing smuggled", n)
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, []Lane{{HTTP1: "127.0.0.1:1", Recorder: NewRecorder()}}, Options{}); err == nil {
		t.Error("a stopped run must not look like a result")
	}
}
