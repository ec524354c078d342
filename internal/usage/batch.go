package usage

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
)

// SpoolID tells the spools of a PoP apart: one whose disk was wiped begins another, whose numbers are others.
type SpoolID [16]byte

// String writes the id in hexadecimal.
func (s SpoolID) String() string { return hex.EncodeToString(s[:]) }

// ParseSpoolID reads what String wrote.
func ParseSpoolID(text string) (s SpoolID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) || hex.EncodeToString(b) != text {
		return s, fmt.Errorf("%w: spool %q", ErrInvalid, text)
	}
	return SpoolID(b), nil
}

// Batch is a run of records of one spool, in their order and without a gap.
type Batch struct {
	Pop   string
	Spool SpoolID
	// Gap says that the spool does not have what came before its first record, and never will: those numbers are lost.
	Gap     bool
	Records []Record
}

// First and Last are the numbers of the batch's ends; 0 of an empty one.
func (b *Batch) First() int64 {
	if len(b.Records) == 0 {
		return 0
	}
	return b.Records[0].Sequence
}

// Last is the number of the newest record.
func (b *Batch) Last() int64 {
	if len(b.Records) == 0 {
		return 0
	}
	return b.Records[len(b.Records)-1].Sequence
}

// Check says what is wrong with a batch.
func (b *Batch) Check() error {
	switch {
	case !name(b.Pop):
		return fmt.Errorf("%w: PoP %q", ErrInvalid, b.Pop)
	case b.Spool == SpoolID{}:
		return fmt.Errorf("%w: the batch names no spool", ErrInvalid)
	case len(b.Records) == 0 || len(b.Records) > MaxRecords:
		return fmt.Errorf("%w: a batch of %d records; it has 1 to %d", ErrInvalid, len(b.Records), MaxRecords)
	}
	for i := range b.Records {
		r := &b.Records[i]
		if err := r.Check(); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if r.Sequence == 0 || r.Sequence != b.Records[0].Sequence+int64(i) {
			return fmt.Errorf("%w: record %d has number %d", ErrInvalid, i, r.Sequence)
		}
	}
	return nil
}

// The form of a batch: magic, version, flags, spool, PoP, count, records, CRC-32C of all before. Numbers are unsigned
// LEB128, as short as can be; texts have their length before them. There is one form of a batch, and no other is read.
const (
	batchMagic   = "RLUB"
	batchVersion = 1
	flagGap      = 1
)

// Append writes the batch behind dst.
func (b *Batch) Append(dst []byte) ([]byte, error) {
	if err := b.Check(); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, batchMagic...)
	var flags byte
	if b.Gap {
		flags |= flagGap
	}
	dst = append(dst, batchVersion, flags)
	dst = append(dst, b.Spool[:]...)
	dst = appendText(dst, b.Pop)
	dst = binary.AppendUvarint(dst, uint64(len(b.Records)))
	for i := range b.Records {
		dst = AppendRecord(dst, &b.Records[i])
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], crc32.MakeTable(crc32.Castagnoli))), nil
}

// ReadBatch reads one batch, which is all of data.
func ReadBatch(data []byte) (*Batch, error) {
	if len(data) > MaxBatch {
		return nil, fmt.Errorf("%w: a batch of %d bytes; at most %d", ErrInvalid, len(data), MaxBatch)
	}
	head := len(batchMagic) + 2 + len(SpoolID{})
	if len(data) < head+4 || string(data[:len(batchMagic)]) != batchMagic {
		return nil, fmt.Errorf("%w: it is no batch of usage records", ErrInvalid)
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return nil, fmt.Errorf("%w: the checksum of the batch is wrong", ErrInvalid)
	}
	version, flags := data[4], data[5]
	if version != batchVersion || flags&^flagGap != 0 {
		return nil, fmt.Errorf("%w: a batch of version %d, flags %#x", ErrInvalid, version, flags)
	}
	b := &Batch{Gap: flags&flagGap != 0, Spool: SpoolID(data[6:head])}
	r := reader{rest: body[head:]}
	b.Pop = r.text(MaxName)
	n := r.number()
	if r.bad || n > MaxRecords {
		return nil, fmt.Errorf("%w: the head of the batch", ErrInvalid)
	}
	b.Records = make([]Record, n)
	for i := range b.Records {
		r.record(&b.Records[i])
	}
	if r.bad || len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: the records of the batch", ErrInvalid)
	}
	return b, b.Check()
}

// AppendRecord writes one record behind dst. It does not check it.
func AppendRecord(dst []byte, r *Record) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.Sequence))
	dst = appendText(dst, r.Organization)
	dst = appendText(dst, r.Site)
	dst = binary.AppendUvarint(dst, uint64(r.Hour))
	for _, n := range r.List() {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// ReadRecord reads one record, which is all of data, and checks it.
func ReadRecord(data []byte) (rec Record, err error) {
	r := reader{rest: data}
	r.record(&rec)
	if r.bad || len(r.rest) > 0 {
		return Record{}, fmt.Errorf("%w: the record cannot be read", ErrInvalid)
	}
	return rec, rec.Check()
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// reader reads numbers and texts until something is wrong.
type reader struct {
	rest []byte
	bad  bool
}

var errNumber = errors.New("not the shortest form of a number")

func uvarint(b []byte) (v uint64, n int, err error) {
	v, n = binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0, errNumber
	}
	return v, n, nil
}

func (r *reader) number() uint64 {
	v, n, err := uvarint(r.rest)
	if r.bad || err != nil || v > MaxCount {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text(most uint64) string {
	n := r.number()
	if r.bad || n > most || n > uint64(len(r.rest)) {
		r.bad = true
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) record(rec *Record) {
	rec.Sequence = int64(r.number())
	rec.Organization = r.text(MaxName)
	rec.Site = r.text(MaxName + uint64(len(ServicePrefix)))
	rec.Hour = Hour(r.number())
	var v [Fields]int64
	for i := range v {
		v[i] = int64(r.number())
	}
	rec.Counts = CountsOf(v)
}

// GapError says that the control plane misses records before those of a batch. A spool that does not have them any more
// sends the batch again with Gap.
type GapError struct {
	Want int64 // the number that is expected next
	Have int64 // the first of the batch
}

// Error names both numbers.
func (e *GapError) Error() string {
	return fmt.Sprintf("the batch begins with record %d, and record %d was expected", e.Have, e.Want)
}
