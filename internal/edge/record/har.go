package record

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/stage"
)

// maxHAR bounds an HTTP Archive.
const maxHAR = 256 << 20

// har is what is read of an HTTP Archive (HAR 1.2).
type har struct {
	Log struct {
		Entries []struct {
			StartedDateTime time.Time `json:"startedDateTime"`
			Time            float64   `json:"time"`
			Request         struct {
				Method   string `json:"method"`
				URL      string `json:"url"`
				Version  string `json:"httpVersion"`
				Headers  []pair `json:"headers"`
				PostData *struct {
					Text string `json:"text"`
				} `json:"postData"`
			} `json:"request"`
			Response struct {
				Status  int    `json:"status"`
				Headers []pair `json:"headers"`
				Content struct {
					Size int64 `json:"size"`
				} `json:"content"`
			} `json:"response"`
		} `json:"entries"`
	} `json:"log"`
}

type pair struct{ Name, Value string }

// ReadHAR reads the requests of an HTTP Archive. Nothing of them is hidden. They have ids by their places.
func ReadHAR(r io.Reader) ([]*Request, error) {
	var h har
	if err := json.NewDecoder(io.LimitReader(r, maxHAR)).Decode(&h); err != nil {
		return nil, fmt.Errorf("this is no HTTP Archive (HAR) of at most %d MiB: %w", maxHAR>>20, err)
	}
	var out []*Request
	for i := range h.Log.Entries {
		e := &h.Log.Entries[i]
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || e.StartedDateTime.IsZero() {
			continue // data:, blob:, ws:
		}
		n := i + 1
		q := &Request{
			Format: RequestFormat, ID: stage.RequestID{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}.String(),
			Time: e.StartedDateTime.UTC(), Client: "192.0.2.1", Proto: harProto(e.Request.Version), Secure: u.Scheme == "https",
			Method: e.Request.Method, Authority: u.Host, Path: u.EscapedPath(), Millis: max(0, e.Time),
			Answer: Answer{Status: e.Response.Status, Fields: harFields(e.Response.Headers), Bytes: max(0, e.Response.Content.Size)},
			Fields: harFields(e.Request.Headers),
		}
		if q.Secure {
			q.ServerName = u.Hostname()
		}
		if q.Path == "" {
			q.Path = "/"
		}
		if u.RawQuery != "" || u.ForceQuery {
			q.Query = &u.RawQuery
		}
		if d := e.Request.PostData; d != nil && d.Text != "" {
			q.Body = &Body{Size: int64(len(d.Text))}
			q.Body.setBytes([]byte(d.Text))
		}
		out = append(out, q)
	}
	return out, nil
}

// harFields are fields without pseudo fields, and without what browsers took off already.
func harFields(list []pair) []Field {
	out := make([]Field, 0, len(list))
	for _, p := range list {
		switch n := strings.ToLower(p.Name); {
		case n == "" || n[0] == ':', n == "content-encoding", n == "transfer-encoding":
			continue
		}
		out = append(out, Field{p.Name, p.Value})
	}
	return out
}

func harProto(s string) string {
	switch s = strings.ToLower(s); {
	case strings.HasPrefix(s, "h3"), strings.HasPrefix(s, "http/3"):
		return "HTTP/3"
	case strings.HasPrefix(s, "h2"), strings.HasPrefix(s, "http/2"):
		return "HTTP/2"
	case s == "http/1.0":
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}
