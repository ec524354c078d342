package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/document"
)

// ChangeQuery is how a change is made.
type ChangeQuery struct {
	DryRun bool   `query:"dryRun" doc:"Check everything, tell what would change, and change nothing"`
	Reason string `query:"reason" maxLength:"1024" doc:"Stands in the revision and the audit log"`
}

func (h ChangeQuery) options() change.Options {
	return change.Options{DryRun: h.DryRun, Reason: h.Reason}
}

// DocumentPath is the path of a document.
type DocumentPath struct {
	OrgPath
	Kind string `path:"kind" maxLength:"63" doc:"Kind of the document, such as Site"`
	Name string `path:"name" maxLength:"253" doc:"Name of the document"`
}

func (n DocumentPath) kind() (v1.Kind, error) {
	if k := v1.Kind(n.Kind); v1.New(k) != nil {
		return k, nil
	}
	return "", newProblem(http.StatusNotFound, "kind", "There is no such kind", fmt.Sprintf("%q is no kind of documents", n.Kind))
}

// Conditions are those of RFC 9110 section 13.
type Conditions struct {
	IfMatch     string `header:"If-Match" maxLength:"64" doc:"The ETag at which the document was read, or *"`
	IfNoneMatch string `header:"If-None-Match" maxLength:"64" doc:"*: only if it does not exist"`
}

// expect reads the precondition; without one the request is refused, because it could undo what somebody else did.
func (e Conditions) expect(inBody bool) (*store.Expect, error) {
	switch {
	case e.IfNoneMatch == "*":
		return new(store.Absent), nil
	case e.IfMatch == "*":
		return nil, nil
	case e.IfMatch != "":
		text := strings.Trim(strings.TrimPrefix(e.IfMatch, "W/"), `"`)
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return nil, newProblem(http.StatusPreconditionFailed, "changed", "It is not at the revision that was expected", "the ETag is none of a document")
		}
		return new(store.Expect(n)), nil
	case inBody:
		return nil, nil
	}
	return nil, newProblem(http.StatusPreconditionRequired, "condition", "A condition is wanted", "send If-Match with the ETag of the document as it was read, If-None-Match: * to make it, or If-Match: * to write whatever is there")
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

type itemOutput struct {
	ETag string `header:"ETag"`
	Body change.Item
}

type documentsInput struct {
	OrgPath
	ChangeQuery
	Prune   bool   `query:"prune" doc:"Delete what exists and is not given"`
	RawBody []byte `contentType:"application/yaml" doc:"Documents in YAML or JSON, with --- between them"`
}

func (a *API) documentRoutes() {
	add(a, route{method: "POST", path: "/organizations/{org}/documents", id: "apply-documents", tag: "documents", summary: "Make or change documents, all or none"},
		func(ctx context.Context, in *documentsInput) (*output[*change.Result], error) {
			o := in.options()
			o.Prune = in.Prune
			r, err := a.change.Apply(ctx, actor(ctx), in.Org, []document.File{{Name: "request", Text: in.RawBody}}, o)
			return &output[*change.Result]{r}, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/documents", id: "list-documents", tag: "documents", summary: "Documents, by project, kind and name"},
		func(ctx context.Context, in *struct {
			OrgPath
			PageQuery
			Kind    string `query:"kind" maxLength:"63" doc:"Of this kind alone"`
			Project string `query:"project" maxLength:"63" doc:"Of this project alone"`
		},
		) (*output[list[change.Item]], error) {
			if in.Kind != "" && v1.New(v1.Kind(in.Kind)) == nil {
				return nil, newProblem(http.StatusNotFound, "kind", "There is no such kind", fmt.Sprintf("%q is no kind of documents", in.Kind))
			}
			return listed(a.change.List(ctx, actor(ctx), in.Org, change.Query{Kind: v1.Kind(in.Kind), Project: in.Project, Cursor: in.Cursor, Limit: in.Limit}))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/documents/{kind}/{name}", id: "get-document", tag: "documents", summary: "A document"},
		func(ctx context.Context, in *DocumentPath) (*itemOutput, error) {
			k, err := in.kind()
			if err != nil {
				return nil, err
			}
			it, err := a.change.Get(ctx, actor(ctx), in.Org, k, in.Name)
			return &itemOutput{etag(it.Revision), it}, err
		})
	add(a, route{method: "PUT", path: "/organizations/{org}/documents/{kind}/{name}", id: "put-document", tag: "documents", summary: "Make or replace a document"}, a.putDocument)
	add(a, route{method: "DELETE", path: "/organizations/{org}/documents/{kind}/{name}", id: "delete-document", tag: "documents", summary: "Delete a document that no other names"},
		func(ctx context.Context, in *struct {
			DocumentPath
			ChangeQuery
			Conditions
		},
		) (*output[*change.Result], error) {
			k, err := in.kind()
			if err != nil {
				return nil, err
			}
			o := in.options()
			if o.Expect, err = in.expect(false); err != nil {
				return nil, err
			}
			r, err := a.change.Delete(ctx, actor(ctx), in.Org, []change.Ref{{Kind: k, Name: in.Name}}, o)
			return &output[*change.Result]{r}, err
		})
	add(a, route{method: "GET", path: "/organizations/{org}/export", id: "export-documents", tag: "documents", summary: "All documents as relais serve -f reads them; secrets as what stands for them"},
		func(ctx context.Context, in *struct {
			OrgPath
			Project string `query:"project" maxLength:"63" doc:"Of this project alone"`
		},
		) (*struct {
			ContentType string `header:"Content-Type"`
			Body        []byte
		}, error,
		) {
			b, err := a.change.Export(ctx, actor(ctx), in.Org, in.Project)
			return &struct {
				ContentType string `header:"Content-Type"`
				Body        []byte
			}{"application/yaml", b}, err
		})
}

type putInput struct {
	DocumentPath
	ChangeQuery
	Conditions
	RawBody []byte `contentType:"application/yaml" doc:"The document in YAML or JSON"`
}

func (a *API) putDocument(ctx context.Context, in *putInput) (*output[*change.Result], error) {
	k, err := in.kind()
	if err != nil {
		return nil, err
	}
	set, _ := document.Decode([]document.File{{Name: "request", Text: in.RawBody}}, nil) // what is wrong Apply tells, to who may know
	revision := false
	for _, d := range set.Documents {
		kind, m := d.Meta()
		revision = m.Revision > 0
		if kind != k || m.Name != in.Name || len(set.Documents) != 1 {
			return nil, newProblem(http.StatusUnprocessableEntity, "another", "The body is another document", fmt.Sprintf("send one document, %s %s", k, in.Name))
		}
	}
	o := in.options()
	if o.Expect, err = in.expect(revision); err != nil {
		return nil, err
	}
	r, err := a.change.Apply(ctx, actor(ctx), in.Org, []document.File{{Name: "request", Text: in.RawBody}}, o)
	return &output[*change.Result]{r}, err
}

func (a *API) historyRoutes() {
	add(a, route{method: "GET", path: "/organizations/{org}/documents/{kind}/{name}/history", id: "document-history", tag: "revisions", summary: "What became of a document, the newest first"},
		func(ctx context.Context, in *struct {
			DocumentPath
			PageQuery
		},
		) (*output[list[change.Past]], error) {
			k, err := in.kind()
			if err != nil {
				return nil, err
			}
			return listed(a.change.History(ctx, actor(ctx), in.Org, k, in.Name, in.Cursor, in.Limit))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/revisions", id: "list-revisions", tag: "revisions", summary: "Changes, the newest first"},
		func(ctx context.Context, in *struct {
			OrgPath
			PageQuery
		},
		) (*output[list[change.Revision]], error) {
			return listed(a.change.Revisions(ctx, actor(ctx), in.Org, in.Cursor, in.Limit))
		})
	add(a, route{method: "GET", path: "/organizations/{org}/diff", id: "diff-revisions", tag: "revisions", summary: "What differs between two revisions"},
		func(ctx context.Context, in *struct {
			OrgPath
			PageQuery
			From int64 `query:"from" minimum:"0" doc:"Revision; 0 is before the first"`
			To   int64 `query:"to" minimum:"0" doc:"Revision; 0 is the newest"`
		},
		) (*output[list[change.Change]], error) {
			return listed(a.change.Diff(ctx, actor(ctx), in.Org, in.From, in.To, in.Cursor, in.Limit))
		})
	add(a, route{method: "POST", path: "/organizations/{org}/rollback", id: "rollback", tag: "revisions", summary: "Make the documents again what they were at a revision, as a new one"},
		func(ctx context.Context, in *struct {
			OrgPath
			ChangeQuery
			To int64 `query:"to" required:"true" minimum:"1" doc:"Revision"`
		},
		) (*output[*change.Result], error) {
			r, err := a.change.Rollback(ctx, actor(ctx), in.Org, in.To, in.options())
			return &output[*change.Result]{r}, err
		})
}
