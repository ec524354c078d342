package usage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"testing"
	"time"
)

func sample() *Batch {
	b := &Batch{Pop: "fra1", Spool: SpoolID{1, 2, 3}}
	for i := range 5 {
		b.Records = append(b.Records, Record{
			Sequence: int64(40 + i), Slot: Slot{"acme", "shop.example", HourOf(time.Date(2026, 11, 24, i, 59, 59, 0, time.UTC))},
			Counts: CountsOf([Fields]int64{1, 2, 3, 4, 5, 6, 7, MaxCount, int64(i)}),
		})
	}
	b.Records[2].Site = ServicePrefix + "mail"
	return b
}

func TestABatchComesBackAsItWent(t *testing.T) {
	b := sample()
	b.Gap = true
	data, err := b.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ReadBatch(data)
	if err != nil || !reflect.DeepEqual(back, b) {
		t.Fatalf("%+v, %v", back, err)
	}
	if b.First() != 40 || b.Last() != 44 {
		t.Errorf("%d to %d", b.First(), b.Last())
	}
	for i := range data { // every bit is under the checksum
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := ReadBatch(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := ReadBatch(data[:i]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes of it: %v", i, err)
		}
	}
}

func TestWhatIsNoBatch(t *testing.T) {
	for name, spoil := range map[string]func(*Batch){
		"no pop":          func(b *Batch) { b.Pop = "" },
		"a pop's name":    func(b *Batch) { b.Pop = "Fra" },
		"no spool":        func(b *Batch) { b.Spool = SpoolID{} },
		"empty":           func(b *Batch) { b.Records = nil },
		"a gap":           func(b *Batch) { b.Records[3].Sequence++ },
		"twice":           func(b *Batch) { b.Records[3].Sequence-- },
		"no number":       func(b *Batch) { b.Records = b.Records[:1]; b.Records[0].Sequence = 0 },
		"negative":        func(b *Batch) { b.Records[1].Requests = -1 },
		"too much":        func(b *Batch) { b.Records[1].BytesOut = MaxCount + 1 },
		"organization":    func(b *Batch) { b.Records[1].Organization = "a/b" },
		"hidden tenants":  func(b *Batch) { b.Records[1].Organization = "~quota" },
		"site":            func(b *Batch) { b.Records[1].Site = "other/mail" },
		"a service":       func(b *Batch) { b.Records[1].Site = ServicePrefix },
		"before its time": func(b *Batch) { b.Records[1].Hour = 3 },
		"after its time":  func(b *Batch) { b.Records[1].Hour = lastHour + 1 },
	} {
		b := sample()
		spoil(b)
		if _, err := b.Append(nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := &Batch{Pop: "fra1", Spool: SpoolID{1}, Records: make([]Record, MaxRecords+1)}
	if err := many.Check(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := ReadBatch(make([]byte, MaxBatch+1)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestTheLargestBatchFits(t *testing.T) {
	long := string(bytes.Repeat([]byte("a"), MaxName))
	b := &Batch{Pop: long, Spool: SpoolID{1}}
	for i := range MaxRecords {
		r := Record{Sequence: MaxCount - MaxRecords + int64(i), Slot: Slot{long, ServicePrefix + long, lastHour}}
		var v [Fields]int64
		for j := range v {
			v[j] = MaxCount
		}
		r.Counts = CountsOf(v)
		b.Records = append(b.Records, r)
	}
	data, err := b.Append(nil)
	if err != nil || len(data) > MaxBatch {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if _, err := ReadBatch(data); err != nil {
		t.Error(err)
	}
}

func TestHoursAndDays(t *testing.T) {
	at := time.Date(2026, 11, 24, 23, 59, 59, 999, time.FixedZone("", 3600))
	h := HourOf(at)
	text, _ := h.MarshalText()
	if string(text) != "2026-11-24T22:00:00Z" || h.Day().First() != h-22 || h.Day() != DayOf(at) {
		t.Errorf("%s", text)
	}
	var back Hour
	if err := back.UnmarshalText(text); err != nil || back != h {
		t.Error(back, err)
	}
	for _, s := range []string{"2026-11-24T22:00:01Z", "2026-11-24T22:00:00+01:00", "2026-11-24T22:00:00.0Z", "1960-01-01T00:00:00Z", "", "now"} {
		if err := back.UnmarshalText([]byte(s)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if HourOf(time.Unix(-1, 0)) != -1 || DayOf(time.Unix(-1, 0)) != -1 {
		t.Error("before 1970")
	}
}

func TestSumsStayAtTheEnd(t *testing.T) {
	c := Counts{Requests: math.MaxInt64 - 1, Orders: 1}
	c.Add(&Counts{Requests: 2, Orders: 2})
	if c.Requests != math.MaxInt64 || c.Orders != 3 {
		t.Errorf("%+v", c)
	}
}

func FuzzBatch(f *testing.F) {
	data, err := sample().Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4 { // no input is kept out by its checksum alone
			body := data[: len(data)-4 : len(data)-4]
			data = binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
		}
		b, err := ReadBatch(data)
		if err != nil {
			return
		}
		again, err := b.Append(nil)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("there are two forms of one batch: %v", err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for i := range sample().Records {
		f.Add(AppendRecord(nil, &sample().Records[i]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadRecord(data)
		if err == nil && !bytes.Equal(AppendRecord(nil, &r), data) {
			t.Error("there are two forms of one record")
		}
	})
}
