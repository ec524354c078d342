package forecast

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/relais-edge/relais/internal/edge/balance"
)

// How access logs are read. A log that is larger than its share of readBudget is read in places, each
// sliceSize bytes long and all equally far apart; a line there stands for those that are not read.
const (
	maxLine     = 64 << 10
	readBudget  = 1 << 30
	leastBudget = 16 << 20
	sliceSize   = 64 << 10
	// bisectTo is how close the search for the beginning of the window comes, in bytes.
	bisectTo = 1 << 20
)

// Logs are access logs to be read.
type Logs struct {
	// Names are files; - is Stdin.
	Names []string
	Stdin io.Reader
	// Window bounds what is read of files, whose lines are in order of time but for a minute or so.
	Window Window
	// Only has the pool of each site that has a single one, as organization/name: refused requests are its.
	Only map[string]string
	// Progress is told the bytes read, and those there are to read; 0 is not known. Nil for nobody.
	Progress func(read, all int64)
	// Budget is how many bytes are read at most; 0 is 1 GiB. Of standard input all is read.
	Budget int64
}

type logReader struct {
	logs  *Logs
	cells *cells
	lines lineReader
	key   []byte
	read  int64
	all   int64
}

// Read reads the logs. Memory is bounded by minutes, pools and tiers, not by lines. An error is that of a file, or ctx's.
func (g *Logs) Read(ctx context.Context) ([]balance.PoolLoad, *LogStats, error) {
	r := &logReader{logs: g, cells: newCells(g.Only)}
	budget := g.Budget
	if budget <= 0 {
		budget = readBudget
	}
	var parts []logPart
	defer func() {
		for _, p := range parts {
			_ = p.f.Close()
		}
	}()
	stdin := false
	for _, name := range g.Names {
		if name == "-" {
			stdin = true
			continue
		}
		p, stream, err := openPart(name)
		if err != nil {
			return nil, nil, err
		}
		if stream {
			err := r.stream(ctx, p.f, 1)
			_ = p.f.Close()
			if err != nil {
				return nil, nil, fmt.Errorf("access log %s: %w", name, err)
			}
			continue
		}
		parts = append(parts, p)
	}
	if err := r.files(ctx, parts, budget); err != nil {
		return nil, nil, err
	}
	if stdin {
		if err := r.stream(ctx, g.Stdin, 1); err != nil {
			return nil, nil, fmt.Errorf("access log on standard input: %w", err)
		}
	}
	r.cells.stats.BytesRead = r.read
	r.cells.stats.Bytes = max(r.all, r.read)
	return r.cells.loads(), &r.cells.stats, nil
}

// logPart is a regular file and the part of it that counts.
type logPart struct {
	name     string
	f        *os.File
	from, to int64
}

// openPart opens a file; stream says that it cannot be read from any place.
func openPart(name string) (logPart, bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return logPart{}, false, fmt.Errorf("access log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return logPart{}, false, fmt.Errorf("access log: %w", err)
	}
	if st.IsDir() {
		_ = f.Close()
		return logPart{}, false, fmt.Errorf("access log %s: is a folder; name the files", name)
	}
	return logPart{name, f, 0, st.Size()}, !st.Mode().IsRegular(), nil
}

// files reads of regular files what is in the window.
func (r *logReader) files(ctx context.Context, parts []logPart, budget int64) error {
	last := int64(0)
	for _, p := range parts {
		last = max(last, r.lastTime(p))
	}
	from, to := r.logs.Window.bounds(float64(last))
	total := int64(0)
	for i := range parts {
		p := &parts[i]
		if last > 0 {
			// Lines are written when requests end, and stand there with the time when they began.
			p.from = r.bisect(*p, int64(from)-60)
			if to < float64(last) {
				p.to = max(p.from, min(p.to, r.bisect(*p, int64(to)+120)+bisectTo))
			}
		}
		total += p.to - p.from
	}
	r.all += total
	for _, p := range parts {
		share := max(int64(float64(budget)*float64(p.to-p.from)/float64(max(total, 1))), min(leastBudget, budget))
		if err := r.file(ctx, p, share); err != nil {
			return fmt.Errorf("access log %s: %w", p.name, err)
		}
	}
	return nil
}

// file reads a part as a whole, or in places.
func (r *logReader) file(ctx context.Context, p logPart, budget int64) error {
	n := p.to - p.from
	if n <= budget {
		return r.section(ctx, p, p.from, p.to, 1)
	}
	r.cells.stats.Sampled = true
	slices := max(budget/sliceSize, 1)
	step := n / slices
	weight := float64(step) / sliceSize
	for i := range slices {
		at := p.from + i*step
		if err := r.section(ctx, p, at, min(at+sliceSize, p.to), weight); err != nil {
			return err
		}
	}
	return nil
}

// section reads the lines that begin in a part of a file.
func (r *logReader) section(ctx context.Context, p logPart, from, to int64, weight float64) error {
	at := from
	if from > 0 {
		at-- // whether a line begins at from says the byte before
	}
	b := bufio.NewReaderSize(io.NewSectionReader(p.f, at, p.to-at+maxLine), maxLine)
	if from > 0 {
		n, _, err := skipLine(b)
		if at += n; err != nil {
			return endOf(err)
		}
	}
	return r.take(ctx, b, to-at, weight)
}

// stream reads all there is.
func (r *logReader) stream(ctx context.Context, in io.Reader, weight float64) error {
	return r.take(ctx, bufio.NewReaderSize(in, maxLine), 1<<62, weight)
}

// take reads lines that begin within so many bytes.
func (r *logReader) take(ctx context.Context, b *bufio.Reader, left int64, weight float64) error {
	var l logLine
	for n := 0; left > 0; n++ {
		if n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if r.logs.Progress != nil {
				r.logs.Progress(r.read, r.all)
			}
		}
		line, err := b.ReadSlice('\n')
		took := int64(len(line))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			more, _, rest := skipLine(b)
			took += more
			err = rest
			r.count(nil, &l, weight)
		case len(bytes.TrimSpace(line)) > 0:
			r.count(line, &l, weight)
		}
		left -= took
		r.read += took
		if err != nil {
			return endOf(err)
		}
	}
	return nil
}

// count takes in a line; nil is one that is too long.
func (r *logReader) count(line []byte, l *logLine, weight float64) {
	c := r.cells
	c.stats.Lines += weight
	if line == nil || !r.lines.read(line, l) {
		c.stats.Unreadable += weight
		return
	}
	r.key = c.add(l, weight, r.key)
}

func skipLine(b *bufio.Reader) (n int64, last []byte, err error) {
	for {
		line, err := b.ReadSlice('\n')
		n += int64(len(line))
		if !errors.Is(err, bufio.ErrBufferFull) {
			return n, line, err
		}
	}
}

func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// timeAt is the Unix time of the first line that can be read after a place; 0 when there is none near.
func (r *logReader) timeAt(p logPart, at, to int64) (seconds int64) {
	b := bufio.NewReaderSize(io.NewSectionReader(p.f, at, min(to-at, 4*maxLine)), maxLine)
	if at > 0 {
		if _, _, err := skipLine(b); err != nil {
			return 0
		}
	}
	var l logLine
	for {
		line, err := b.ReadSlice('\n')
		if r.lines.read(line, &l) {
			return l.minute*60 + int64(l.seconds)
		}
		if err != nil {
			return 0
		}
	}
}

// lastTime is the latest time in the end of a file.
func (r *logReader) lastTime(p logPart) (last int64) {
	at := max(0, p.to-4*maxLine)
	b := bufio.NewReaderSize(io.NewSectionReader(p.f, at, p.to-at), maxLine)
	var l logLine
	for {
		line, err := b.ReadSlice('\n')
		if r.lines.read(line, &l) {
			last = max(last, l.minute*60+int64(l.seconds))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return last
		}
	}
}

// bisect finds a place before the first line of a time, as near as bisectTo.
func (r *logReader) bisect(p logPart, seconds int64) int64 {
	lo, hi := p.from, p.to
	for hi-lo > bisectTo {
		mid := lo + (hi-lo)/2
		if t := r.timeAt(p, mid, p.to); t != 0 && t < seconds {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}
