//go:build unix

package segment

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpu reports CPU time, which a busy machine disturbs less than wall time.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	from := used()
	return func() { b.ReportMetric(float64(used()-from)/float64(b.N), "cpu-ns/op") }
}

// A log of 1 KiB bodies, in memory and in files whose pages are in the page cache.
func benchLog(b *testing.B, dir bool) (*Log, []Record) {
	cfg := Config{Limit: 256 << 20, SegmentSize: 4 << 20, QueueBytes: 64 << 20, Log: quiet()}
	if dir {
		d, err := OpenDir(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		cfg.Dir = d
	}
	l, err := New(cfg, newBook())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	var rs []Record
	for i := range 20000 {
		r, err := store(l, uint64(i), bytesOf(1, 300), bytesOf(2, 1024), 1024)
		if err != nil {
			b.Fatal(err)
		}
		rs = append(rs, r)
	}
	if dir {
		if err := l.flush(); err != nil {
			b.Fatal(err)
		}
	}
	return l, rs
}

func BenchmarkPinAndRead1K(b *testing.B) {
	for _, dir := range []bool{false, true} {
		b.Run(fmt.Sprintf("files=%v", dir), func(b *testing.B) {
			l, rs := benchLog(b, dir)
			var o Object
			p := make([]byte, 1024)
			b.ReportAllocs()
			defer cpu(b)()
			i := 0
			for b.Loop() {
				if l.Pin(rs[i*7919%len(rs)].At, &o) != nil {
					b.Fatal("gone")
				}
				if _, ok := o.Slice(0, o.Len()); !ok {
					if _, err := o.ReadAt(p, 0); err != nil {
						b.Fatal(err)
					}
				}
				o.Unpin()
				i++
			}
		})
	}
}

func BenchmarkStore1K(b *testing.B) {
	l, _ := benchLog(b, false)
	key, head, body := []byte("https://shop.example/a"), bytesOf(1, 300), bytesOf(2, 1024)
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		w, err := l.Create(Meta{Hash: 1, Key: key, Head: head, Length: 1024, Born: int64(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		_ = w.Append(body)
		if _, err := w.Commit(1024); err != nil {
			b.Fatal(err)
		}
	}
}
