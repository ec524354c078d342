package document

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
)

// batch is how many parts a worker takes at a time.
const batch = 64

// result is what was found in one part. Of problems only their number is kept: a part that has some is
// read again to tell them, as long as there are few.
type result struct {
	documents []v1.Document
	written   []v1.Document
	nths      []int
	problems  int
}

// Read reads the documents of texts. See Load.
func Read(files []File, env func(string) (string, bool)) (*Set, []Problem) {
	return read(files, mode{env: env})
}

// Decode reads documents that somebody sent: dollar signs mean nothing, no file is read that they name, and they are
// kept as they were written too, in Written. Fill, where given, puts into a document what its receiver knows, before
// defaults and rules; what it finds wrong is a problem. It may be called by several goroutines, and several times for
// one document.
func Decode(files []File, fill func(v1.Document) []v1.Problem) (*Set, []Problem) {
	return read(files, mode{sent: true, written: true, fill: fill})
}

// mode is how documents are read.
type mode struct {
	env     func(string) (string, bool)
	sent    bool // by somebody who is not of this machine
	written bool // keep them without defaults too
	fill    func(v1.Document) []v1.Problem
}

func (m mode) reader() *reader {
	return &reader{decoder: decoder{env: m.env, literal: m.sent}, written: m.written, fill: m.fill}
}

func read(files []File, how mode) (*Set, []Problem) {
	set := &Set{mode: how}
	var parts []origin
	var problems []Problem
	for i, f := range files {
		text := string(bytes.TrimPrefix(f.Text, []byte("\ufeff")))
		set.files = append(set.files, source{f.Name, text})
		parts = split(parts, i, text)
		if len(parts) > MaxDocuments {
			problems = append(problems, Problem{File: f.Name, What: fmt.Sprintf("there are more than %d documents", MaxDocuments), Fix: "serve them from several edges"})
			return set, problems
		}
	}
	results := set.readParts(parts)
	teller := how.reader()
	more := 0
	set.Documents = make([]v1.Document, 0, len(parts))
	set.origins = make([]origin, 0, len(parts))
	for i := range results {
		r := &results[i]
		if r.problems > 0 && len(problems) < MaxProblems {
			teller.tell = func(p Problem) { problems = append(problems, p) }
			teller.part(&set.files[parts[i].file], parts[i])
		} else {
			more += r.problems
		}
		for j, d := range r.documents {
			o := parts[i]
			o.nth = r.nths[j]
			set.Documents = append(set.Documents, d)
			if how.written {
				set.Written = append(set.Written, r.written[j])
			}
			set.origins = append(set.origins, o)
		}
	}
	problems = append(problems, set.twice()...)
	problems = append(problems, set.attach()...)
	if more += len(problems) - MaxProblems; more > 0 {
		problems = append(problems[:MaxProblems], Problem{
			File: problems[MaxProblems-1].File, What: fmt.Sprintf("and %d more problems", more), Fix: "mend those above first",
		})
	}
	return set, problems
}

// readParts reads the parts side by side, as many at a time as there are processors.
func (s *Set) readParts(parts []origin) []result {
	results := make([]result, len(parts))
	var next atomic.Int64
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), 1+len(parts)/batch)
	for range workers {
		wg.Go(func() {
			r := s.mode.reader()
			for {
				end := int(next.Add(batch))
				if end-batch >= len(parts) {
					return
				}
				for i := end - batch; i < min(end, len(parts)); i++ {
					results[i] = r.part(&s.files[parts[i].file], parts[i])
				}
			}
		})
	}
	wg.Wait()
	return results
}

// split cuts a text at the lines that begin a document. A text with directives or end marks, which
// belong to their neighbours, stays whole.
func split(parts []origin, file int, text string) []origin {
	if text == "" {
		return parts
	}
	if text[0] == '%' || strings.Contains(text, "\n%") || strings.Contains(text, "\n...") {
		return append(parts, origin{file: file, end: len(text)})
	}
	start, line := 0, 0
	for at := 0; ; {
		n := strings.Index(text[at:], "\n---")
		if n < 0 {
			return append(parts, origin{file: file, start: start, end: len(text), line: line})
		}
		at += n + 1
		if after := at + 3; after == len(text) || strings.IndexByte(" \t\r\n", text[after]) >= 0 {
			parts = append(parts, origin{file: file, start: start, end: at, line: line})
			line += strings.Count(text[start:at], "\n")
			start = at
		}
	}
}

// reader reads parts, one after the other.
type reader struct {
	fast    fastReader
	decoder decoder
	written bool
	fill    func(v1.Document) []v1.Problem
	tell    func(Problem) // nil when problems are only counted
}

// trees gives the documents of a text as trees, which hold until the next call.
func (r *reader) trees(text string) ([]tree, *fault) {
	if len(text) > MaxDocumentBytes {
		return nil, &fault{what: fmt.Sprintf("the document is larger than %d MiB", MaxDocumentBytes>>20), fix: "split it"}
	}
	if r.fast.read(text) {
		return []tree{r.fast.tree}, nil
	}
	return readLibrary(text)
}

func (r *reader) part(f *source, o origin) (out result) {
	// The document's texts point into a copy, so that one that stays in service does not keep the
	// file in memory.
	text := strings.Clone(f.text[o.start:o.end])
	trees, broken := r.trees(text)
	for nth := range trees {
		doc := r.decoder.document(&trees[nth])
		faults := r.decoder.faults
		name := ""
		if doc != nil {
			if r.fill != nil {
				for _, p := range r.fill(doc) {
					faults = append(faults, fault{at: trees[nth].find(p.Field), field: p.Field, what: p.What, fix: p.Fix})
				}
			}
			v1.Default(doc)
			name = label(doc)
			faults = append(faults, validate(doc, &trees[nth], faults)...)
			if _, m := doc.Meta(); m.Name != "" {
				out.documents = append(out.documents, doc)
				out.nths = append(out.nths, nth)
				if r.written {
					out.written = append(out.written, r.again(&trees[nth]))
				}
			}
		}
		r.report(&out, place{f.name, text, o.line}, name, faults)
	}
	if broken != nil {
		r.report(&out, place{f.name, text, o.line}, "", []fault{*broken})
	}
	return out
}

// again decodes a document once more, which keeps it without defaults.
func (r *reader) again(t *tree) v1.Document {
	d := r.decoder
	d.at, d.faults = nil, nil
	doc := d.document(t)
	if r.fill != nil {
		r.fill(doc) // what is wrong has been told
	}
	return doc
}

// place is a part of a file, and the line before it.
type place struct {
	file, text string
	line       int
}

func (r *reader) report(out *result, at place, name string, faults []fault) {
	out.problems += len(faults)
	if r.tell == nil {
		return
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return int(a.at) - int(b.at) })
	for _, x := range faults {
		line, column := position(at.text, int(x.at))
		r.tell(Problem{at.file, at.line + line, column, name, x.field, x.what, x.fix})
	}
}

// validate gives what the rules find, without what only follows from the faults of decoding.
func validate(doc v1.Document, t *tree, faults []fault) []fault {
	var more []fault
next:
	for _, p := range v1.Validate(doc) {
		for _, f := range faults {
			if f.field == p.Field || strings.HasPrefix(f.field, p.Field+".") || f.meant == p.Field && !t.has(p.Field) {
				continue next
			}
		}
		more = append(more, fault{at: t.find(p.Field), field: p.Field, what: p.What, fix: p.Fix})
	}
	return more
}

// twice finds documents with one kind, organization and name.
func (s *Set) twice() []Problem {
	type name struct {
		kind               v1.Kind
		organization, name string
	}
	var problems []Problem
	first := make(map[name]int, len(s.Documents))
	for i, d := range s.Documents {
		kind, m := d.Meta()
		k := name{kind, m.Organization, m.Name}
		j, there := first[k]
		if !there {
			first[k] = i
			continue
		}
		if len(problems) < MaxProblems {
			p := s.place(i, v1.Problem{Field: "metadata.name", What: "the document is given twice", Fix: ""})
			before := s.place(j, v1.Problem{Field: "metadata.name"})
			p.Fix = fmt.Sprintf("remove one or rename it; the other is at %s:%d", before.File, before.Line)
			problems = append(problems, p)
		}
	}
	return problems
}
