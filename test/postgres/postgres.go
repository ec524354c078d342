// Package postgres starts throw-away PostgreSQL servers for tests: Debian's package or the machine's own programs, in a
// folder of their own, on a Unix socket, as a user without rights.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is how long a server may take to start or to end on a busy machine.
const patience = 2 * time.Minute

// Server is a PostgreSQL server of one test process.
type Server struct {
	bin, dir string
	user     *syscall.Credential // nil: our own
	process  *exec.Cmd
	made     atomic.Int64
}

// Start makes a server. Where no programs of PostgreSQL are found and this is root on Debian, they are installed; what
// that says goes to out.
func Start(ctx context.Context, out io.Writer) (*Server, error) {
	bin, err := programs(ctx, out)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.user, err = lesserUser(); err != nil {
		return nil, err
	}
	// Short, because the path of a Unix socket has at most 107 bytes; and not below the folder of a test, which the
	// other user could not enter.
	if s.dir, err = os.MkdirTemp("/tmp", "relais-pg-"); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if s.user != nil {
		err = os.Chown(s.dir, int(s.user.Uid), int(s.user.Gid))
	}
	if err == nil {
		err = s.run(ctx, "initdb", "-D", s.data(), "-U", "relais", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	}
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// programs finds the folder of the newest PostgreSQL.
func programs(ctx context.Context, out io.Writer) (string, error) {
	find := func() string {
		list, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
		if err != nil || len(list) == 0 {
			return ""
		}
		version := func(path string) int {
			n, _ := strconv.Atoi(strings.Split(path, "/")[4])
			return n
		}
		return filepath.Dir(slices.MaxFunc(list, func(a, b string) int { return version(a) - version(b) }))
	}
	if bin := find(); bin != "" {
		return bin, nil
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", errors.New("postgres: no PostgreSQL on this machine; as root run: apt-get install postgresql")
	}
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "postgresql"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil && find() == "" {
			return "", fmt.Errorf("postgres: apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	if bin := find(); bin != "" {
		return bin, nil
	}
	return "", errors.New("postgres: the package is installed, and has no server programs")
}

// lesserUser is whom a server runs as: PostgreSQL refuses to run as root.
func lesserUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("postgres: user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("postgres: user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres: this is root, and there is no user postgres or nobody to run a server as")
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (s *Server) run(ctx context.Context, name string, args ...string) error {
	if out, err := s.command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("postgres: %s: %w\n%s", name, err, out)
	}
	return nil
}

// Run starts the server again after Kill, and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer log.Close()
	// Only power cuts need fsync, and no test makes one: a killed process has given its bytes to the kernel.
	s.process = s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "jit=off")
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := s.run(ctx, "pg_isready", "-q", "-h", s.dir, "-U", "relais", "-d", "postgres")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return errors.Join(fmt.Errorf("postgres: the server does not answer: %w\n%s", err, text), s.Kill())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// DSN is the connection string of a database of the server.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s user=relais dbname=%s sslmode=disable", s.dir, database)
}

// Database makes an empty database and gives its connection string.
func (s *Server) Database(ctx context.Context) (string, error) {
	name := fmt.Sprintf("t%d_%s", s.made.Add(1), strings.ToLower(rand.Text()[:6]))
	return s.DSN(name), s.SQL(ctx, "postgres", "CREATE DATABASE "+name)
}

// SQL runs a statement with psql.
func (s *Server) SQL(ctx context.Context, database, statement string) error {
	return s.run(ctx, "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-U", "relais", "-d", database, "-c", statement)
}

// Kill ends all processes of the server as kill -9 does.
func (s *Server) Kill() error {
	if s.process == nil {
		return nil
	}
	// Workers are of their server's process group until they make their own; they see its death and end.
	err := syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	_ = s.process.Wait() // says that it was killed
	s.process = nil
	return errors.Join(err, s.waitForWorkers())
}

// waitForWorkers waits until a next server finds no one left in its shared memory.
func (s *Server) waitForWorkers() error {
	deadline := time.Now().Add(patience)
	for {
		busy := false
		list, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			return fmt.Errorf("postgres: %w", err)
		}
		for _, link := range list {
			at, err := os.Readlink(link)
			busy = busy || err == nil && at == s.data()
		}
		if !busy {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("postgres: workers outlive their server")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Stop ends the server and removes what it kept.
func (s *Server) Stop() error {
	err := s.Kill() // nothing of it is wanted any more
	if gone := os.RemoveAll(s.dir); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
