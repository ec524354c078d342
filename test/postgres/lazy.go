package postgres

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Lazy is a server of a test program that starts with the first test that wants it.
type Lazy struct {
	once sync.Once
	pg   *Server
	err  error
}

// Main runs the tests of a package, ends the server and gives the exit code.
func (l *Lazy) Main(m *testing.M) int {
	code := m.Run()
	if l.pg != nil {
		if err := l.pg.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// Database makes an empty database and gives its connection string.
func (l *Lazy) Database(ctx context.Context) (dsn string, err error) {
	l.once.Do(func() { l.pg, l.err = Start(context.WithoutCancel(ctx), os.Stderr) })
	if l.err != nil {
		return "", l.err
	}
	return l.pg.Database(ctx)
}

// suite is the test under which others run over PostgreSQL.
const suite = "TestOverPostgres"

// Wanted says whether a test runs below TestOverPostgres.
func Wanted(t *testing.T) bool { return strings.HasPrefix(t.Name(), suite+"/") }

// Again runs tests of the package in the current folder once more, for Wanted to find. It fails for those of the package's
// that are neither among them nor said to need no store.
func Again(t *testing.T, tests map[string]func(*testing.T), without ...string) {
	known := map[string]bool{suite: true, "TestMain": true}
	for _, n := range without {
		known[n] = true
	}
	for n := range tests {
		known[n] = true
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && !known[fn.Name.Name] {
				t.Errorf("%s is not run over PostgreSQL", fn.Name.Name)
			}
		}
	}
	for n, test := range tests {
		t.Run(n, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}
