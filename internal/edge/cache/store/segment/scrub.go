package segment

import (
	"context"
	"time"
)

// scrub reads all that is stored again and again, at a low rate, so that damage is found before
// a visitor asks for it. What was verified for File counts no longer once a segment was scrubbed.
func (l *Log) scrub(ctx context.Context) {
	if l.cfg.ScrubRate <= 0 {
		return
	}
	wait := time.NewTimer(time.Second)
	defer wait.Stop()
	pause := func(n int64) bool {
		wait.Reset(max(time.Duration(float64(n)/float64(l.cfg.ScrubRate)*float64(time.Second)), time.Millisecond))
		select {
		case <-ctx.Done():
			return false
		case <-wait.C:
			return true
		}
	}
	var last uint64
	for pause(l.cfg.ScrubRate) { // a second between segments, and when there is none
		s := l.after(last)
		if s == nil {
			last = 0
			continue
		}
		last = s.seq.Load()
		if !l.scrubSegment(s, pause) {
			return
		}
	}
}

// after finds the oldest full segment younger than a sequence.
func (l *Log) after(seq uint64) *segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.order {
		if s.seq.Load() > seq && s.disk.done.Load() {
			return s
		}
	}
	return nil
}

// scrubSegment verifies the objects of a segment; pause is told what was read, and ends it by false.
func (l *Log) scrubSegment(s *segment, pause func(n int64) bool) bool {
	life := uint32(s.seq.Load())
	if life == 0 {
		return true
	}
	if held, _ := l.pin(s.base+firstRecord, 0, life); held == nil {
		return true
	}
	s.disk.unverify()
	s.pins.Add(-1)
	var o Object
	buf := make([]byte, sumBlock)
	going, gone := true, false
	_, err := l.eachEntry(s, func(e *entry) {
		if !going || gone || e.kind == kindErased {
			return
		}
		// Between two records the segment may leave, and what is then found is not damage.
		if held, _ := l.pin(s.base+firstRecord, 0, life); held == nil {
			gone = true
			return
		}
		r := e.record(s.base)
		n, err := l.check(r.At, &o, buf)
		s.pins.Add(-1)
		l.n.scrubbed.Add(n)
		if err == ErrCorrupt {
			l.n.scrubBad.Add(1)
			l.owner.Lost(r)
		}
		going = pause(n)
	})
	if err != nil && err != errFormat { // another life has begun
		l.n.readErrors.Add(1)
	}
	return going
}

func (l *Log) check(at Location, o *Object, buf []byte) (int64, error) {
	if err := l.Pin(at, o); err != nil {
		return readAhead, err
	}
	defer o.Unpin()
	n := int64(readAhead)
	for off := int64(0); off < o.Len(); off += int64(len(buf)) {
		m, err := o.ReadAt(buf[:min(int64(len(buf)), o.Len()-off)], off)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
