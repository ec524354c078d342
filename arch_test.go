// Package relais_test holds the house's rules as tests: who may import whom, what stands on
// every door, and what no room may hold.
package relais_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/relais-edge/relais/"

// rooms is the plan of the house: each room, its row, and the neighbours in its own row that
// it may import. A room imports rows below it. ARCHITECTURE.md shows the same table.
var rooms = []room{
	{"internal/http/syntax", 0, nil},
	{"internal/http/deadline", 0, nil},
	{"internal/virtual", 0, nil},
	{"api/v1", 0, []string{"internal/http/syntax"}},
	{"internal/bundle", 1, nil},
	{"internal/bundle/wire", 2, nil},
	{"internal/usage", 1, nil},
	{"internal/usage/price", 2, nil},
	{"internal/usage/invoice", 3, nil},
	{"internal/observe", 1, nil},
	{"internal/handover", 1, nil},
	{"internal/http/message", 1, nil},
	{"internal/compile", 2, nil},
	{"internal/http/hpack", 2, nil},
	{"internal/http/qpack", 2, []string{"internal/http/hpack"}},
	{"internal/snapshot", 2, nil},
	{"internal/openapi", 2, nil},
	{"internal/token", 1, nil},
	{"internal/keypair", 2, nil},
	{"internal/document", 3, nil},
	{"internal/stage", 3, nil},
	{"internal/http/http1", 3, nil},
	{"internal/http/http2", 3, []string{"internal/http/http1"}},
	{"internal/http/std", 3, nil},
	{"internal/http/http3", 3, []string{"internal/http/std"}},
	{"internal/acme", 4, nil},
	{"internal/edge/cache/store/anon", 2, nil},
	{"internal/edge/cache/store/*", 3, nil},
	{"internal/packet", 4, nil},
	{"internal/edge/cache/*", 4, nil},
	{"internal/edge/cache", 5, nil},
	{"internal/forecast", 5, nil},
	{"internal/edge/proxyproto", 3, nil},
	{"internal/edge/loadreport", 3, nil},
	{"internal/edge/waf/regression", 2, nil},
	{"internal/edge/waf/screen", 3, nil},
	{"internal/edge/waf/learn", 3, nil},
	{"internal/edge/waf/traffic", 3, nil},
	{"internal/edge/hold", 3, nil},
	{"internal/edge/seal", 3, nil},
	{"internal/edge/budget", 3, nil},
	{"internal/edge/cookie", 3, nil},
	{"internal/edge/notice", 3, nil},
	{"internal/edge/*", 4, nil},
	{"internal/edge/ratelimit/*", 5, nil},
	{"internal/edge", 6, nil},
	{"internal/pop", 6, nil},
	{"internal/pop/spool", 2, nil},
	{"internal/pop/orders", 2, nil},
	{"internal/replay", 6, []string{"internal/edge"}},
	{"internal/control/store", 1, nil},
	{"internal/control/store/storetest", 2, nil},
	{"internal/control/tenant/auth", 1, nil},
	{"internal/control/tenant/audit", 2, nil},
	{"internal/control/tenant/secret", 2, nil},
	{"internal/control/tenant", 3, nil},
	{"internal/control/egress", 0, nil},
	{"internal/control/tenant/claim", 4, nil},
	{"internal/control/rollout", 5, nil},
	{"internal/control/change", 5, nil},
	{"internal/control/api", 6, nil},
	{"internal/control", 6, []string{"internal/control/api", "internal/control/hub"}},
	{"internal/control/hub", 6, []string{"internal/control/api"}},
	{"api/client", 0, nil},
	{"internal/control/purge", 5, nil},
	{"internal/bus", 1, nil},
	{"internal/bus/limits", 5, nil},
	{"internal/bus/*", 2, []string{"internal/identity"}},
	{"internal/identity", 2, nil},
	{"internal/control/enrol", 3, nil},
	{"internal/manifest", 1, nil},
	{"internal/fleet", 2, nil},
	{"internal/control/usage", 4, nil},
	{"internal/control/tenant/oidc", 4, nil},
	{"internal/control/tenant/brand", 4, []string{"internal/control/tenant/claim"}},
	{"demo/*", 4, nil},
	{"cmd/relais", 7, nil},
	{"cmd/*", 7, nil},
	{"bench", 7, nil},
	{"bench/*", 7, []string{"bench/*"}},
	{"bench/*/*", 7, nil},
	{"test/proc", 4, nil},
	{"test/conformance/*", 6, nil},
	{"test/*", 7, []string{"test/*"}},
	{"test/*/*", 7, []string{"test/*", "test/*/*"}},
}

type room struct {
	path       string
	row        int
	neighbours []string
}

// homes gives each third-party library its one room. The end of a path may be left out.
var homes = map[string][]string{
	"github.com/prometheus/client_golang":   {"internal/observe"},
	"github.com/corazawaf/":                 {"internal/edge/waf", "bench/waf"},
	"github.com/tidwall/gjson":              {"internal/edge/waf"},
	"github.com/klauspost/compress":         {"internal/edge/encode", "internal/bundle/wire"},
	"github.com/andybalholm/brotli":         {"internal/edge/encode"},
	"github.com/quic-go/quic-go":            {"internal/http/http3", "bench"},
	"golang.org/x/net/http2":                {"internal/http/std", "bench", "test"},
	"golang.org/x/net":                      {"internal/http/std", "internal/http/http3", "api/v1", "internal/compile", "test", "bench", "internal/control/tenant/claim"},
	"github.com/cilium/ebpf":                {"internal/packet"},
	"github.com/google/nftables":            {"internal/packet"},
	"go.yaml.in/yaml":                       {"internal/document", "internal/edge/waf/regression"},
	"github.com/spf13/cobra":                {"cmd/relais"},
	"github.com/spf13/pflag":                {"cmd/relais"},
	"modernc.org/sqlite":                    {"demo/shop", "internal/control/store"},
	"github.com/jackc/pgx/v5":               {"internal/control/store"},
	"github.com/nats-io/nats-server/v2":     {"internal/bus/nats"},
	"github.com/nats-io/nats.go":            {"internal/bus/nats"},
	"github.com/parquet-go/parquet-go":      {"internal/usage/invoice"},
	"golang.org/x/crypto/argon2":            {"internal/control/tenant/auth"},
	"github.com/danielgtaylor/huma/v2":      {"internal/control/api"},
	"filippo.io/age":                        {"internal/control/tenant/secret"},
	"golang.org/x/sys":                      {"bench", "internal/http/deadline", "internal/edge/origin", "internal/edge/l4", "internal/edge/waf", "internal/packet", "test/netlab"},
	"github.com/coreos/go-oidc":             {"internal/control/tenant/oidc"},
	"golang.org/x/oauth2":                   {"internal/control/tenant/oidc"},
	"golang.org/x/sync/errgroup":            {"cmd/relais", "internal/edge", "internal/pop", "internal/control/hub", "internal/control/purge"},
	"golang.org/x/term":                     {"cmd/relais"},
	"go.uber.org/goleak":                    {"*"},
	"pgregory.net/rapid":                    {"*"},
	"github.com/rogpeppe/go-internal":       {"*"},
	"github.com/google/go-cmp":              {"*"},
	"golang.org/x/text":                     {"api/v1"},
	"golang.org/x/crypto/ocsp":              {"internal/edge/listen", "test"},
	"github.com/caddyserver/certmagic":      {"internal/acme"},
	"github.com/mholt/acmez":                {"internal/acme"},
	"github.com/letsencrypt/":               {"test"},
	"github.com/miekg/dns":                  {"test"},
	"golang.org/x/image":                    {"internal/edge/image"},
	"github.com/gen2brain/":                 {"internal/edge/image"},
	"github.com/dunglas/httpsfv":            {"internal/edge/bots"},
	"github.com/go-jose/go-jose":            {"internal/token"},
	"github.com/oschwald/maxminddb-golang":  {"internal/edge/geo"},
	"github.com/maxmind/mmdbwriter":         {"internal/edge/geo"},
	"github.com/santhosh-tekuri/jsonschema": {"internal/openapi"},
}

type file struct {
	path, dir string
	test      bool
	ast       *ast.File
	fset      *token.FileSet
	src       []byte
}

// goFiles reads the files itself: the test cache sees what a test opens, not what a child
// process does.
func goFiles(t *testing.T) []file {
	t.Helper()
	var out []file
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") || p != "." && hasGoMod(p) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, src, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, file{filepath.ToSlash(p), filepath.ToSlash(filepath.Dir(p)), strings.HasSuffix(p, "_test.go"), f, fset, src})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func hasGoMod(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func find(dir string) *room {
	for i := range rooms {
		if ok, _ := path.Match(rooms[i].path, dir); ok {
			return &rooms[i]
		}
	}
	return nil
}

func TestARoomImportsOnlyTheRowsBelow(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.test || f.dir == "." {
			continue
		}
		from := find(f.dir)
		if from == nil {
			t.Errorf("%s: a new room needs a line on the plan of the house", f.path)
			continue
		}
		for _, spec := range f.ast.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			dir, ours := strings.CutPrefix(name, module)
			if !ours {
				checkHome(t, f, name)
				continue
			}
			to := find(dir)
			neighbour := to != nil && slices.ContainsFunc(from.neighbours, func(n string) bool { ok, _ := path.Match(n, dir); return ok })
			if to == nil || to.row >= from.row && !neighbour {
				t.Errorf("%s (row %d) may not import %s", f.path, from.row, dir)
			}
		}
	}
}

func checkHome(t *testing.T, f file, lib string) {
	t.Helper()
	if first, _, _ := strings.Cut(lib, "/"); !strings.Contains(first, ".") {
		return
	}
	best := ""
	for prefix := range homes {
		if strings.HasPrefix(lib, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	for _, home := range homes[best] {
		if home == "*" || f.dir == home || strings.HasPrefix(f.dir, home+"/") {
			return
		}
	}
	t.Errorf("%s imports %s: a library has one home (%v)", f.path, lib, homes[best])
}

func TestEveryDoorHasASentence(t *testing.T) {
	doors := map[string]bool{}
	for _, f := range goFiles(t) {
		if !f.test {
			doors[f.dir] = doors[f.dir] || f.ast.Doc != nil && !ast.IsGenerated(f.ast)
		}
	}
	for dir, ok := range doors {
		if !ok {
			t.Errorf("%s: no package comment", dir)
		}
	}
}

func TestNoInitAndNoMutableGlobals(t *testing.T) {
	byDir := map[string][]file{}
	for _, f := range goFiles(t) {
		if !f.test {
			byDir[f.dir] = append(byDir[f.dir], f)
		}
	}
	for _, files := range byDir {
		globals := map[string]bool{}
		for _, f := range files {
			collectGlobals(t, f, globals)
		}
		for _, f := range files {
			checkWrites(t, f, globals)
		}
	}
}

func collectGlobals(t *testing.T, f file, globals map[string]bool) {
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "init" && d.Recv == nil {
				t.Errorf("%s: no init functions", f.fset.Position(d.Pos()))
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				v := s.(*ast.ValueSpec)
				embedded := d.Doc != nil && strings.Contains(commentText(d.Doc), "go:embed")
				for _, n := range v.Names {
					globals[n.Name] = n.Name != "_"
					if n.Name != "_" && len(v.Values) == 0 && !embedded {
						t.Errorf("%s: variable %s has no value, so somebody changes it", f.fset.Position(n.Pos()), n.Name)
					}
				}
			}
		}
	}
}

func commentText(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

// checkWrites finds assignments to package-level variables and their addresses.
func checkWrites(t *testing.T, f file, globals map[string]bool) {
	global := func(e ast.Expr) bool {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.Ident:
				if !globals[x.Name] {
					return false
				}
				if x.Obj == nil {
					return true // declared in another file of the package
				}
				spec, ok := x.Obj.Decl.(*ast.ValueSpec)
				return ok && slices.ContainsFunc(f.ast.Decls, func(d ast.Decl) bool {
					g, ok := d.(*ast.GenDecl)
					return ok && slices.Contains(g.Specs, ast.Spec(spec))
				})
			default:
				return false
			}
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				if n.Tok != token.DEFINE && global(l) {
					t.Errorf("%s: a package-level variable is changed", f.fset.Position(l.Pos()))
				}
			}
		case *ast.IncDecStmt:
			if global(n.X) {
				t.Errorf("%s: a package-level variable is changed", f.fset.Position(n.Pos()))
			}
		}
		return true
	})
}

// Budgets, as questions to the author that need an answer here.
const (
	maxFile = 520
	maxFunc = 100
)

func TestFilesAndFunctionsKeepTheirBudget(t *testing.T) {
	for _, f := range goFiles(t) {
		if ast.IsGenerated(f.ast) {
			continue
		}
		if n := strings.Count(string(f.src), "\n"); n > maxFile && !f.test {
			t.Errorf("%s: %d lines, more than %d", f.path, n, maxFile)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil || f.test {
				continue
			}
			if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line; n > maxFunc {
				t.Errorf("%s: %s has %d lines, more than %d", f.path, fn.Name.Name, n, maxFunc)
			}
		}
	}
}

func TestNoFileNamesARegistryOrAMachine(t *testing.T) {
	banned := []string{"proxy." + "golang.org", "registry." + "npmjs.org", "deb." + "debian.org", "/work" + "/"}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == ".work" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() == ".git" { // of a second work tree
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, w := range banned {
			if strings.Contains(string(b), w) {
				t.Errorf("%s names %s", p, w)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
