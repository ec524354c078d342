// Command reverseproxy is the standard library's reverse proxy with an access
// log: the peer that most Go programs would be.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "host:port to listen on")
	backend := flag.String("backend", "127.0.0.1:9000", "host:port to forward to")
	path := flag.String("log", "/dev/null", "access log, appended to")
	flag.Parse()
	out, err := os.OpenFile(*path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	target := &url.URL{Scheme: "http", Host: *backend}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	log.Fatal(http.ListenAndServe(*listen, logged(proxy, out)))
}

// logged writes one line in the combined format for each answer, unbuffered.
func logged(next http.Handler, out *os.File) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(c, r)
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(out, "%s - - [%s] \"%s %s %s\" %d %d %q %q\n", host, time.Now().Format("02/Jan/2006:15:04:05 -0700"),
			r.Method, r.RequestURI, r.Proto, c.status, c.bytes, r.Referer(), r.UserAgent())
	})
}

// counter notes what was answered.
type counter struct {
	http.ResponseWriter
	status, bytes int
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the server's writer.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
