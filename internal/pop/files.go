// Package pop is the agent of one place: it follows the documents, keeps the last good ones
// in service, and says what is wrong with newer ones.
package pop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/document"
)

// Applier puts a bundle in service, whole or not at all; the edge is one.
type Applier interface {
	Apply(ctx context.Context, b *bundle.Bundle) error
}

// Config of Files.
type Config struct {
	// Paths are files and folders of documents.
	Paths []string
	// Env looks up the variables that documents name.
	Env func(string) (string, bool)
	// Every is how often the files are looked at; 0 means every second.
	Every time.Duration
	Apply Applier
	// Report is told of every change, good or bad.
	Report func(Change)
}

// Change is what came of a change of the files.
type Change struct {
	// Revision is the digest of the documents, as 12 hexadecimal digits.
	Revision string
	Sites    int
	Services int
	Took     time.Duration
	// Unused are documents that only a control plane has a use for.
	Unused []string
	// Problems are why nothing changed; empty when the change is in service.
	Problems []document.Problem
	// Err is why the edge could not take documents that are good in themselves.
	Err error
}

// Files follows documents in files.
type Files struct {
	cfg  Config
	mu   sync.Mutex
	seen string // stamp of the files that were last read
	// beside are the files that the documents name.
	beside []string
	state  State
}

// State is what is in service.
type State struct {
	Revision string
	Applied  time.Time
	Sites    int
	// Problem is why newer documents are not in service.
	Problem string
}

// New returns a follower; Load or Run reads.
func New(cfg Config) *Files {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	return &Files{cfg: cfg}
}

// State returns what is in service.
func (f *Files) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Compile reads documents and compiles them, without putting them in service. Documents that would
// open no port are a problem too: whoever put them in service would serve nothing, and a reload to
// them would end all that is served.
func Compile(paths []string, env func(string) (string, bool)) (*bundle.Bundle, []document.Problem) {
	b, _, problems := compileFiles(paths, env)
	return b, problems
}

// compileFiles is Compile that also gives what was read.
func compileFiles(paths []string, env func(string) (string, bool)) (*bundle.Bundle, *document.Set, []document.Problem) {
	set, problems := document.Load(paths, env)
	b, found := set.Compile()
	problems = append(problems, found...)
	if len(problems) == 0 && len(b.Listeners)+len(b.Services) == 0 {
		problems = append(problems, document.Problem{
			File: strings.Join(paths, ", "), What: "has neither a Listener nor a Service, so that no port would be open and nothing served",
			Fix: "add a Listener, which may be as short as {apiVersion: relais/v1, kind: Listener, metadata: {name: http}, spec: {address: \":8080\"}}, or name the file that has it too",
		})
	}
	if len(problems) > 0 {
		return nil, set, problems
	}
	return b, set, nil
}

// Load reads the documents and puts them in service.
func (f *Files) Load(ctx context.Context) Change {
	begin := time.Now()
	stamp := f.stamp()
	b, set, problems := compileFiles(f.cfg.Paths, f.cfg.Env)
	if f.follow(set.Referenced()) { // the stamp is of before the reading, so that no change falls in between
		stamp = f.stamp()
		b, set, problems = compileFiles(f.cfg.Paths, f.cfg.Env)
	}
	c := Change{Problems: problems, Unused: set.Unused()}
	if len(problems) == 0 {
		c.Revision, c.Sites, c.Services = revision(stamp), len(b.Sites), len(b.Services)
		c.Err = f.cfg.Apply.Apply(ctx, b)
	}
	c.Took = time.Since(begin)
	f.mu.Lock()
	f.seen = stamp
	switch {
	case len(problems) > 0:
		f.state.Problem = fmt.Sprintf("%s (%d problems in all)", problems[0], len(problems))
	case c.Err != nil:
		f.state.Problem = c.Err.Error()
	default:
		f.state = State{Revision: c.Revision, Applied: time.Now(), Sites: c.Sites}
	}
	f.mu.Unlock()
	if f.cfg.Report != nil {
		f.cfg.Report(c)
	}
	return c
}

// follow notes which files the documents name, and says whether they are others than before.
func (f *Files) follow(beside []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(f.beside, beside) {
		return false
	}
	f.beside = beside
	return true
}

// Run reloads when the files change, or when wake is sent to, until ctx ends.
func (f *Files) Run(ctx context.Context, wake <-chan os.Signal) error {
	tick := time.NewTicker(f.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wake:
			f.Load(ctx)
		case <-tick.C:
			f.mu.Lock()
			seen := f.seen
			f.mu.Unlock()
			// A file that is still being written looks different at the next tick.
			if now := f.stamp(); now != seen {
				f.Load(ctx)
			}
		}
	}
}

// stamp is a digest of names and contents of the files, or of why they cannot be read.
func (f *Files) stamp() string {
	h := sha256.New()
	f.mu.Lock()
	paths := slices.Concat(f.cfg.Paths, f.beside)
	f.mu.Unlock()
	for _, p := range paths {
		if p == "-" {
			continue // read once
		}
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := os.Stat(path)
			if err == nil && !info.Mode().IsRegular() {
				fmt.Fprintf(h, "%s\x00%s\x00", path, info.Mode()) // reading a pipe may never end
				return nil
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // replaced just now
			}
			fmt.Fprintf(h, "%s\x00%d\x00", path, len(b))
			h.Write(b)
			return err
		})
		if err != nil {
			fmt.Fprint(h, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func revision(stamp string) string { return stamp[:12] }
