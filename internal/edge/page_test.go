package edge

import (
	"testing"

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
