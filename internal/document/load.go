package document

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/compile"
)

// The limits of what is read.
const (
	MaxFiles     = 10_000
	MaxFileBytes = 256 << 20
	// MaxDocuments of all files together.
	MaxDocuments     = 1_000_000
	MaxDocumentBytes = 4 << 20
	// MaxProblems are told of all files together.
	MaxProblems = 500
)

// File is a text with documents.
type File struct {
	// Name for problems.
	Name string
	// Text in YAML or JSON.
	Text []byte
}

// Set is the documents of some files, with the places they came from.
type Set struct {
	// Documents in the order of the files, defaults filled in. Those with problems are among them, as
	// far as their name is known, so that others that name them are not blamed for it.
	Documents []v1.Document
	// Written are the same documents without defaults, as they were written; of Decode and LoadWritten alone.
	Written []v1.Document

	mode       mode
	origins    []origin // of Documents
	files      []source
	referenced []string
}

// source is a file that was read.
type source struct{ name, text string }

// origin is the part of a file that holds a document, and which of the part's documents it is.
type origin struct {
	file, start, end int
	line             int // of start, from 0
	nth              int
}

// Load reads documents from files, from directories (their *.yaml, *.yml and *.json files by name, not
// deeper) and, for "-", from standard input. Env looks up variables, as os.LookupEnv does. It gives all
// problems of all files at once; when there is one, the documents must not be put into service.
func Load(paths []string, env func(string) (string, bool)) (*Set, []Problem) {
	return load(paths, mode{env: env})
}

// LoadWritten is Load that keeps the documents as they were written too, variables and files that they name filled in:
// so that they can be sent to a control plane.
func LoadWritten(paths []string, env func(string) (string, bool)) (*Set, []Problem) {
	return load(paths, mode{env: env, written: true})
}

func load(paths []string, how mode) (*Set, []Problem) {
	l := lister{stdin: os.Stdin}
	for _, p := range paths {
		l.path(p)
	}
	if len(l.files) == 0 && len(l.problems) == 0 {
		l.problems = append(l.problems, Problem{File: strings.Join(paths, ", "), What: "holds no documents", Fix: "name a file, or a directory with *.yaml, *.yml or *.json files"})
	}
	set, problems := read(l.files, how)
	if problems = append(l.problems, problems...); len(problems) == 0 && len(set.Documents) == 0 {
		problems = append(problems, Problem{File: strings.Join(paths, ", "), What: "holds no documents", Fix: "write at least one; an edge without documents serves nothing"})
	}
	return set, problems
}

// Compile joins the documents of the set into a bundle. The problems are those between documents,
// with their places; when there are any, there is no bundle.
func (s *Set) Compile() (*bundle.Bundle, []Problem) {
	b, found := compile.Compile(s.Documents)
	if len(found) == 0 {
		return b, nil
	}
	index := make(map[v1.Document]int, len(s.Documents))
	for i, d := range s.Documents {
		index[d] = i
	}
	problems := make([]Problem, 0, len(found))
	for _, p := range found {
		problems = append(problems, s.place(index[p.Document], p.Problem))
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(s.fileIndex(a.File), s.fileIndex(b.File)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return nil, problems
}

func (s *Set) fileIndex(name string) int {
	return slices.IndexFunc(s.files, func(f source) bool { return f.name == name })
}

// Place gives the problem of the document at an index its file and line.
func (s *Set) Place(i int, p v1.Problem) Problem { return s.place(i, p) }

// Unused names the documents that one edge by itself has no use for, as problems do.
func (s *Set) Unused() (names []string) {
	for _, d := range s.Documents {
		if kind, _ := d.Meta(); v1.OfFleet(kind) {
			names = append(names, label(d))
		}
	}
	return names
}

// place gives the problem of a document of the set its file and line.
func (s *Set) place(i int, p v1.Problem) Problem {
	out := Problem{Document: label(s.Documents[i]), Field: p.Field, What: p.What, Fix: p.Fix}
	o := s.origins[i]
	f := s.files[o.file]
	out.File = f.name
	text := f.text[o.start:o.end]
	trees, _ := new(reader).trees(text)
	at := 0
	if o.nth < len(trees) {
		at = int(trees[o.nth].find(p.Field))
	}
	out.Line, out.Column = position(text, at)
	out.Line += o.line
	return out
}

// label names a document as problems do.
func label(d v1.Document) string {
	kind, m := d.Meta()
	switch {
	case m.Name == "":
		return string(kind)
	case m.Organization == "" || m.Organization == "default":
		return string(kind) + " " + m.Name
	}
	return string(kind) + " " + m.Organization + "/" + m.Name
}

// lister finds the files of paths.
type lister struct {
	stdin    io.Reader
	files    []File
	problems []Problem
}

func (l *lister) problem(name, what, fix string) {
	l.problems = append(l.problems, Problem{File: name, What: what, Fix: fix})
}

func (l *lister) path(p string) {
	if p == "-" {
		l.read("stdin", l.stdin)
		return
	}
	info, err := os.Stat(p)
	if err != nil {
		l.failed(p, err)
		return
	}
	if !info.IsDir() {
		l.file(p)
		return
	}
	entries, err := os.ReadDir(p)
	if err != nil {
		l.failed(p, err)
		return
	}
	before := len(l.files) + len(l.problems)
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
		default:
			continue
		}
		name := filepath.Join(p, e.Name())
		if info, err := os.Stat(name); strings.HasPrefix(e.Name(), ".") || err == nil && info.IsDir() {
			continue
		}
		l.file(name)
	}
	if len(l.files)+len(l.problems) == before {
		l.problem(p, "the directory holds no documents", "put *.yaml, *.yml or *.json files into it")
	}
}

func (l *lister) file(name string) {
	if len(l.files) >= MaxFiles {
		if len(l.files) == MaxFiles {
			l.problem(name, fmt.Sprintf("there are more than %d files", MaxFiles), "put more documents into one file")
		}
		return
	}
	info, err := os.Stat(name)
	if err != nil {
		l.failed(name, err)
		return
	}
	if !info.Mode().IsRegular() { // reading a pipe may never end
		l.problem(name, "is not a regular file", "write the documents into a file, or give them to standard input with -f -")
		return
	}
	f, err := os.Open(name)
	if err != nil {
		l.failed(name, err)
		return
	}
	defer f.Close()
	l.read(name, f)
}

func (l *lister) read(name string, r io.Reader) {
	text, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	switch {
	case err != nil:
		l.failed(name, err)
	case len(text) > MaxFileBytes:
		l.problem(name, fmt.Sprintf("the file is larger than %d MiB", MaxFileBytes>>20), "split it")
	case len(bytes.TrimSpace(text)) == 0:
		// Most often one that is being written: its documents must not go out of service meanwhile.
		l.problem(name, "the file is empty", "write documents into it, or remove it")
	default:
		l.files = append(l.files, File{name, text})
	}
}

func (l *lister) failed(name string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	fix := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fix = "check the path"
	case errors.Is(err, fs.ErrPermission):
		fix = "allow the user of this process to read it"
	}
	l.problem(name, "cannot be read: "+err.Error(), fix)
}
