package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
)

// Bounds of watching.
const (
	maxWatchers      = 1000
	maxWatchersOfOne = 16
	heartbeat        = 15 * time.Second
	poll             = 500 * time.Millisecond // for what other control planes write
	eventTime        = 10 * time.Second       // for a client to take an event
	maxEventChanges  = 500
)

// Event is a revision, as watchers are told of it.
type Event struct {
	Organization string          `json:"organization"`
	Revision     int64           `json:"revision"`
	Time         time.Time       `json:"time"`
	Author       string          `json:"author"`
	Reason       string          `json:"reason,omitempty"`
	Changes      []change.Change `json:"changes" doc:"Documents that changed, without their fields; at most 500"`
}

// watchers are counted, in all and of each actor.
type watchers struct {
	mu  sync.Mutex
	all int
	of  map[string]int
}

func (w *watchers) enter(who string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= maxWatchers || w.of[who] >= maxWatchersOfOne {
		return false
	}
	w.all++
	w.of[who]++
	return true
}

func (w *watchers) leave(who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.of[who]--; w.of[who] == 0 {
		delete(w.of, who)
	}
}

type watchInput struct {
	OrgPath
	LastEventID string `header:"Last-Event-ID" maxLength:"20" doc:"Revision after which to begin; absent: the newest"`
}

func (a *API) watchRoutes() {
	op := huma.Operation{
		Method: "GET", Path: "/v1/organizations/{org}/watch", OperationID: "watch", Tags: []string{"revisions"}, Security: []map[string][]string{{"token": {}}, {"session": {}}},
		Summary:     "Revisions as they are made, as server-sent events",
		Description: "Events are named revision, with an Event as data and the number of the revision as id, which is told at the beginning too; or reset, where the history since Last-Event-ID is not kept any more: read everything anew.",
		Responses: map[string]*huma.Response{"200": {Description: "Events", Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[Event](), true, "Event"),
		}}}},
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *watchInput) (*huma.StreamResponse, error) {
		after, err := a.beginWatch(ctx, in)
		if err != nil {
			return nil, a.problemOf(ctx, a.denied(ctx, "watch", err))
		}
		who := actor(ctx)
		if !a.watchers.enter(who.String()) {
			p := newProblem(http.StatusTooManyRequests, "watchers", "Too many watch already", fmt.Sprintf("at most %d of one user or token", maxWatchersOfOne))
			p.wait = 60
			return nil, a.problemOf(ctx, p)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer a.watchers.leave(who.String())
			_, w := humago.Unwrap(hc)
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			s := &stream{api: a, w: w, control: http.NewResponseController(w), actor: who, org: in.Org, after: after}
			s.run(ctx)
		}}, nil
	})
}

func (a *API) mayWatch(ctx context.Context, r *store.Reader, who tenant.Actor, org string) error {
	return a.tenant.Authorize(ctx, r, who, tenant.Access{Verb: tenant.VerbRead, Kind: "document", Organization: org})
}

func (a *API) beginWatch(ctx context.Context, in *watchInput) (after int64, err error) {
	err = a.store.View(ctx, func(r *store.Reader) error {
		if err := a.mayWatch(ctx, r, actor(ctx), in.Org); err != nil {
			return err
		}
		o, err := r.Organization(ctx, in.Org)
		if after = o.Revision; err != nil || in.LastEventID == "" {
			return err
		}
		n, err := strconv.ParseInt(in.LastEventID, 10, 64)
		if err != nil || n < 0 || n > o.Revision {
			return newProblem(http.StatusBadRequest, "event-id", "Last-Event-ID is of no revision", "give the id of the last event that was seen, or none")
		}
		after = n
		return nil
	})
	return after, err
}

// stream is one watcher.
type stream struct {
	api     *API
	w       http.ResponseWriter
	control *http.ResponseController
	actor   tenant.Actor
	org     string
	after   int64
}

// run tells of revisions until the client goes, takes nothing any more, or may not know any more.
func (s *stream) run(ctx context.Context) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	look := time.NewTicker(poll)
	defer look.Stop()
	// The id is told at once, so that who loses the connection before the first event resumes from here too.
	if !s.send(fmt.Sprintf(": hello\nid: %d\n\n", s.after)) {
		return
	}
	for {
		changed := s.api.store.Changed()
		if !s.tell(ctx) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-look.C:
		case <-beat.C:
			if !s.send(": still here\n\n") {
				return
			}
		}
	}
}

// tell sends what is new. Whether the actor still may is asked each time.
func (s *stream) tell(ctx context.Context) bool {
	for {
		var next *Event
		reset := false
		err := s.api.store.View(ctx, func(r *store.Reader) error {
			if err := s.api.mayWatch(ctx, r, s.actor, s.org); err != nil {
				return err
			}
			if err := s.api.tenant.Stands(ctx, r, s.actor); err != nil {
				return err
			}
			o, err := r.Organization(ctx, s.org)
			if err != nil || o.Revision <= s.after {
				return err
			}
			if reset = s.after+1 < o.Pruned; reset {
				s.after = o.Revision
				return nil
			}
			next, err = event(ctx, r, s.org, s.after+1)
			return err
		})
		switch {
		case err != nil:
			return false
		case reset:
			return s.send(fmt.Sprintf("id: %d\nevent: reset\ndata: {}\n\n", s.after))
		case next == nil:
			return true
		}
		b, err := json.Marshal(next)
		if err != nil || !s.send(fmt.Sprintf("id: %d\nevent: revision\ndata: %s\n\n", next.Revision, b)) {
			return false
		}
		s.after = next.Revision
	}
}

func event(ctx context.Context, r *store.Reader, org string, number int64) (*Event, error) {
	v, err := r.Revision(ctx, org, number)
	if err != nil {
		return nil, err
	}
	e := &Event{Organization: org, Revision: v.Number, Time: v.Time, Author: v.Author, Reason: v.Reason, Changes: []change.Change{}}
	list, _, err := r.Changes(ctx, org, number, "", maxEventChanges)
	for _, c := range list {
		if what, is := change.Told(c); is {
			e.Changes = append(e.Changes, what)
		}
	}
	return e, err
}

func (s *stream) send(text string) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(eventTime))
	if _, err := io.WriteString(s.w, text); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
