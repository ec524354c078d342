package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// job is one picture to make.
type job struct {
	src      []byte
	reserved int64 // bytes of the budget for src
	v        *variant
	head     head
	plan     plan
	cost     int64 // bytes of the budget for the work
	// mayGrow is false where the quality was asked for, so that the same picture is worth writing anew.
	mayGrow bool
}

// result is what came of a job. Err says more of a failure.
type result struct {
	outcome outcome
	format  format
	bytes   []byte
	err     error
}

// prepare reads the head and decides, before anything is decoded; made means that there is work to do.
func (j *job) prepare(r *rule, memory int64) outcome {
	h, ok := readHead(j.src)
	if !ok {
		return damaged
	}
	j.head = h
	switch {
	case h.animated:
		return animated
	case h.foreign:
		return notImage
	case int64(h.width) > r.maxPixels || int64(h.height) > r.maxPixels || int64(h.width)*int64(h.height) > r.maxPixels:
		return tooLarge
	}
	w, t := h.width, h.height
	if h.turned() {
		w, t = t, w
	}
	if j.plan, ok = planFor(&j.v.form, w, t); !ok {
		return tooLarge
	}
	f := j.v.format
	same := f == h.kind.format() && h.kind != gifKind || f == original && !(j.v.chosen && h.kind == webpKind)
	if same && !j.plan.scaled && h.orientation == 1 && j.mayGrow {
		return fine
	}
	if j.cost = j.estimate(); j.cost+j.reserved > memory {
		return tooLarge
	}
	return made
}

// The memory that the encoders take, by BenchmarkMake: what an instance begins with, and for each pixel.
const (
	webpMemory, webpPerPixel = 8 << 20, 32
	avifMemory, avifPerPixel = 40 << 20, 130
	plainPerPixel            = 12
)

// estimate is the memory that the work takes at most.
func (j *job) estimate() int64 {
	h, p := &j.head, &j.plan
	n := int64(h.width) * int64(h.height) * int64(h.perPixel)
	n += int64(h.height+h.width) * int64(p.width+p.height) // the rows between the two passes, of four channels and two bytes
	out := int64(p.width) * int64(p.height)
	switch j.v.format {
	case webpFormat:
		return n + webpMemory + out*webpPerPixel
	case avifFormat:
		return n + avifMemory + out*avifPerPixel
	}
	return n + out*plainPerPixel
}

// run has a worker do the job, and waits for it no longer than timeout. A worker that takes longer goes on,
// holding its place, as no decoder can be stopped everywhere.
func (s *Stage) run(ctx context.Context, organization string, timeout time.Duration, j *job) result {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errLate)
	defer cancel()
	if !s.pool.take(ctx, organization) {
		s.memory.give(j.reserved)
		if ctx.Err() != nil {
			return result{outcome: late, err: context.Cause(ctx)}
		}
		return result{outcome: busy}
	}
	if !s.memory.take(j.cost) {
		s.pool.give()
		s.memory.give(j.reserved)
		return result{outcome: busy}
	}
	done := make(chan result, 1)
	go func() {
		start := time.Now()
		res := s.work(ctx, j)
		s.m.seconds.Observe(time.Since(start).Seconds())
		s.memory.give(j.reserved + j.cost)
		s.pool.give()
		done <- res
	}()
	select {
	case res := <-done:
		return res
	case <-ctx.Done():
		return result{outcome: late, err: context.Cause(ctx)}
	}
}

// work does the job. A panic of a decoder or an encoder ends here.
func (s *Stage) work(ctx context.Context, j *job) (res result) {
	defer func() {
		if p := recover(); p != nil {
			res = result{outcome: panicked, err: fmt.Errorf("panic: %v at %s", p, firstFrames(debug.Stack()))}
		}
	}()
	res, err := s.make(ctx, j)
	if err != nil {
		res = result{outcome: damaged, err: err}
		if ctx.Err() != nil {
			res.outcome = late
		}
	}
	return res
}

// firstFrames is the beginning of a stack, for an explanation.
func firstFrames(stack []byte) []byte { return stack[:min(len(stack), 1024)] }

var errOther = errors.New("the picture is not what its head says")

// make decodes, scales, turns and encodes.
func (s *Stage) make(ctx context.Context, j *job) (result, error) {
	ended := func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	m, err := s.codec.decode(&patient{ended, bytes.NewReader(j.src)}, j.head.kind)
	if err != nil {
		return result{}, err
	}
	if b := m.Bounds(); b.Dx() != j.head.width || b.Dy() != j.head.height {
		return result{}, errOther
	}
	r, ok := rasterOf(m, j.head.kind)
	if !ok {
		return result{outcome: notImage}, nil
	}
	p := j.plan.lying(j.head.orientation)
	if r, err = r.resized(ctx, &p, j.v.format == pngFormat); err != nil {
		return result{}, err
	}
	r = r.upright(j.head.orientation)
	f := j.target(r)
	out := limited{ended: ended}
	if err := s.codec.encode(&out, r, f, j.v.quality); err != nil {
		return result{}, err
	}
	b := out.b
	if j.head.profile != nil {
		b = withProfile(b, f, j.head.profile, r)
	}
	if len(b) >= len(j.src) && j.spareable(f) {
		return result{outcome: fine}, nil
	}
	return result{outcome: made, format: f, bytes: b}, nil
}

// target is the format that is written.
func (j *job) target(r *raster) format {
	f := j.v.format
	if f == avifFormat && (!withAVIF || j.head.profile != nil || r.width*r.height > maxAVIF) {
		f = original // a profile cannot be put into an AVIF here
		if j.v.webp {
			f = webpFormat
		}
	}
	if f == webpFormat && !withWebP {
		f = original
	}
	if f != original {
		return f
	}
	f = j.head.kind.format()
	if f == webpFormat && (j.v.chosen || !withWebP) { // not accepted
		f = jpegFormat
	}
	if f == jpegFormat && !r.opaque {
		f = pngFormat
	}
	return f
}

// spareable says whether the original does as well, where a picture of the same size in format f is no smaller.
func (j *job) spareable(f format) bool {
	if j.plan.scaled || j.head.orientation != 1 {
		return false
	}
	if j.v.chosen && j.head.kind == webpKind {
		return f == webpFormat // one that the client does not accept does not do
	}
	return j.v.chosen || j.v.format == original || f == j.head.kind.format() && j.head.kind != gifKind
}
