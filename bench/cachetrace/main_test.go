package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/cache/store/admission"
)

func short(name string) shape {
	for _, s := range shapes {
		if s.name == name {
			s.requests, s.catalog = 400_000, 50_000
			return s
		}
	}
	return shape{}
}

func TestOursHitsMoreByObjectAndNoLessByByteThanS3FIFO(t *testing.T) {
	tr := generate(short("goal"))
	capacity := tr.footprint / 20
	log, err := newRelais(capacity, tr.footprint/int64(tr.unique), admission.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ours := measure(log, tr.requests)
	if log.failed > 0 || log.index.Len() != len(log.records) {
		t.Errorf("%d records without a place in the index, %d in it, %d in the log", log.failed, log.index.Len(), len(log.records))
	}
	if log.used > capacity {
		t.Errorf("%d bytes in a log of %d", log.used, capacity)
	}
	if err := log.close(); err != nil {
		t.Error(err)
	}
	s3, tiny := measure(newS3FIFO(capacity), tr.requests), measure(newTinyLFU(capacity), tr.requests)
	t.Logf("ours %.4f, S3-FIFO %.4f, W-TinyLFU %.4f", ours, s3, tiny)
	if ours.objects < s3.objects+0.03 || ours.bytes < s3.bytes {
		t.Errorf("ours %.4f, S3-FIFO %.4f", ours, s3)
	}
	if ours.objects < tiny.objects || ours.bytes < tiny.bytes+0.02 {
		t.Errorf("ours %.4f, W-TinyLFU %.4f", ours, tiny)
	}
}

func TestATraceIsTheSameInEveryRun(t *testing.T) {
	for _, s := range shapes {
		s.requests, s.catalog = 20_000, 2_000
		a, b := generate(s), generate(s)
		if !slices.Equal(a.requests, b.requests) || a.footprint != b.footprint || a.unique != b.unique {
			t.Errorf("%s differs", s.name)
		}
		sum := int64(0)
		seen := map[uint32]bool{}
		for _, r := range a.requests {
			if !seen[r.id] {
				sum += int64(r.size)
			}
			seen[r.id] = true
			if r.size < 512 || r.size > 4<<20 {
				t.Fatalf("%s: an object of %d bytes", s.name, r.size)
			}
		}
		if len(seen) != a.unique || sum != a.footprint {
			t.Errorf("%s: %d objects of %d bytes, told %d and %d", s.name, len(seen), sum, a.unique, a.footprint)
		}
	}
}

func TestPeersStayWithinTheirBytes(t *testing.T) {
	tr := generate(shape{requests: 30_000, catalog: 3_000, zipf: 0.9, oneHit: 0.2})
	capacity := tr.footprint / 20
	old, s3, tiny := newLRU(capacity), newS3FIFO(capacity), newTinyLFU(capacity)
	for _, r := range tr.requests {
		for _, p := range []policy{old, s3, tiny} {
			p.request(r)
		}
		if old.used > capacity || s3.small.used+s3.main.used > capacity || tiny.window.used+tiny.main.used > capacity {
			t.Fatalf("LRU %d, S3-FIFO %d, W-TinyLFU %d of %d bytes", old.used, s3.small.used+s3.main.used, tiny.window.used+tiny.main.used, capacity)
		}
	}
}

func TestAShortRunFailsAndSaysWhy(t *testing.T) {
	// A log that keeps next to nothing at its tail is a bad policy.
	s := settings{only: "goal", share: 0.05, requests: 20_000, catalog: 5_000, policy: admission.Config{Rewrite: 0.01, Counters: 1}}
	var out strings.Builder
	if err := run(s, &out); !errors.Is(err, errShort) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(out.String(), "goal 0.565 0.583") {
		t.Error(out.String())
	}
	for _, bad := range []settings{{}, {only: "none", share: 0.05, requests: 1000, catalog: 1000}} {
		if err := run(bad, io.Discard); err == nil || errors.Is(err, errShort) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
