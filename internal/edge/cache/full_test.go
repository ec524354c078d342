package cache

import (
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/stage"
)

// noRoom is what balance answers when every tier is full.
func noRoom() reply {
	return reply{err: &stage.Error{Code: "destination_unavailable", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second, Err: stage.ErrFull}}
}

func TestRFC5861_4_WithoutRoomWhatIsStaleStandsIn(t *testing.T) {
	window := ok("Cache-Control: max-age=1, stale-if-error=60")
	after := 2 * time.Second
	reload := []string{"Cache-Control: no-cache"}
	cases := []rfcCase{
		{name: "by the answer's own window", steps: []step{{reply: window}, {after: after, reply: noRoom(), want: "stale", body: "hello world"}}},
		{name: "by the policy's stale-if-error", spec: v1.CachePolicySpec{StaleIfError: v1.Duration(time.Hour)}, steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: after, reply: noRoom(), want: "stale"},
		}},
		{name: "by the policy's staleDisconnected", spec: v1.CachePolicySpec{StaleDisconnected: v1.Duration(time.Hour)}, steps: []step{
			{reply: ok("Cache-Control: max-age=1")}, {after: after, reply: noRoom(), want: "stale"},
		}},
		{name: "and nobody asks for two seconds", steps: []step{
			{reply: window},
			{after: after, reply: noRoom(), want: "stale"},
			{after: time.Second, want: "stale"}, // a request to the origin would be one without a reply
			{after: after, reply: window, want: "expired"},
		}},
		{name: "to HEAD as well", steps: []step{{reply: window}, {req: "HEAD /a", after: after, reply: noRoom(), want: "stale"}}},
		{name: "what is fresh, though a reload wants it validated (RFC 9111 section 5.2.1.4)", steps: []step{
			{reply: ok("Cache-Control: max-age=60")}, {headers: reload, after: time.Second, reply: noRoom(), want: "stale", body: "hello world"},
		}},
		{name: "not what was never stored", steps: []step{{reply: noRoom(), status: 503}}},
		{name: "not without a window", steps: []step{{reply: ok("Cache-Control: max-age=1")}, {after: after, reply: noRoom(), status: 503}}},
		{name: "not behind it", steps: []step{{reply: window}, {after: 62 * time.Second, reply: noRoom(), status: 503}}},
		{name: "not to HEAD behind it", steps: []step{{reply: window}, {req: "HEAD /a", after: 62 * time.Second, reply: noRoom(), status: 503}}},
	}
	spec := v1.CachePolicySpec{StaleIfError: v1.Duration(time.Hour), StaleDisconnected: v1.Duration(time.Hour)}
	for _, d := range []string{"must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"} {
		cases = append(cases, rfcCase{name: "not against " + d + " (RFC 9111 section 4.2.4)", spec: spec, steps: []step{
			{reply: ok("Cache-Control: max-age=1, " + d)}, {after: after, reply: noRoom(), status: 503},
		}})
	}
	for i := range cases {
		cases[i].name = "RFC5861 4 " + cases[i].name
	}
	run(t, cases)
}
