package edge

import (
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

func TestAPageSaysWhatWasWrong(t *testing.T) {
	for status, want := range map[int]string{
		400: "Request not understood", 403: "Request blocked", 404: "Page not found", 408: "Request too slow",
		413: "Request too large", 414: "Request too large", 431: "Request too large", 429: "Too many requests",
		500: "Something went wrong", 501: "Method not supported", 502: "The site does not answer", 503: "Very busy just now",
	} {
		if got := wordsFor(nil, &stage.Error{Status: status}); got.title != want {
			t.Errorf("%d: %q, want %q", status, got.title, want)
		}
	}
	for kind := range englishWords {
		if frenchWords[kind][1] == "" {
			t.Errorf("%s is not said in French", kind)
		}
	}
}

func TestAnErrorForGRPCIsTrailersOnly(t *testing.T) {
	for status, want := range map[int]string{
		400: "3", 401: "16", 403: "7", 404: "12", 408: "4", 413: "8", 429: "8", 499: "1", 500: "13", 501: "12", 502: "14", 503: "14", 504: "4", 418: "2",
	} {
		in := &message.Request{Proto: message.HTTP2}
		in.AddString(message.ContentType, "application/grpc+proto")
		in.AddString(message.AcceptLanguage, "fr")
		var resp message.Response
		fill(&resp, in, &stage.Error{Status: status, Code: "some_code"}, stage.RequestID{})
		if resp.Status != 200 || string(resp.Lookup("grpc-status")) != want || string(resp.Get(message.ContentType)) != "application/grpc" {
			t.Errorf("%d: %d, grpc-status %q", status, resp.Status, resp.Lookup("grpc-status"))
		}
		for _, c := range resp.Lookup("grpc-message") {
			if c < ' ' || c > '~' {
				t.Errorf("%d: %q", status, resp.Lookup("grpc-message"))
				break
			}
		}
		if resp.Bytes != nil || resp.Body != nil || resp.ContentLength != 0 {
			t.Errorf("%d: it has a body", status)
		}
	}
	in := &message.Request{Proto: message.HTTP11}
	in.AddString(message.ContentType, "application/grpc")
	var resp message.Response
	if fill(&resp, in, &stage.Error{Status: 503}, stage.RequestID{}); resp.Status != 503 {
		t.Error("HTTP/1.1 has no gRPC")
	}
}

func TestAGRPCCallWhoseDeadlineIsOverIsNotUnavailable(t *testing.T) {
	for timeout, want := range map[string]string{"1m": "4", "1H": "14", "": "14"} {
		in := &message.Request{Proto: message.HTTP2}
		in.AddString(message.ContentType, "application/grpc")
		if timeout != "" {
			in.AddLine([]byte("grpc-timeout"), []byte(timeout))
		}
		x := &stage.Exchange{In: in, Start: time.Now().Add(-time.Second)}
		resp := page(x, &stage.Error{Code: "http_protocol_error", Side: stage.SideOrigin, Status: 502})
		if got := string(resp.Lookup("grpc-status")); got != want {
			t.Errorf("a timeout of %q: grpc-status %s, want %s", timeout, got, want)
		}
	}
}
