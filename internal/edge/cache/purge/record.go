package purge

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"time"
)

// A file is a header and records, each as
//
//	0xA7, length of the payload (4 bytes), CRC-32C of the payload (4 bytes), payload
//
// with numbers in little endian. The payload of a record is number, milliseconds since 1970 (both as
// varints), the kind with the highest bit for soft, and three texts with their lengths as varints. The
// header's is the magic, 16 bytes of identity and the base.
const (
	recordMark = 0xA7
	recordHead = 9
	maxRecord  = MaxSite + MaxHost + MaxValue + 64
	softBit    = 0x80
	magic      = "relais purge log 1\n"
)

// appendRecord appends a payload as a record.
func appendRecord(dst, payload []byte) []byte {
	dst = append(dst, recordMark)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	return append(dst, payload...)
}

// readRecord lends the payload of the record that b begins with, and its length with head; false when
// there is no whole and good one.
func readRecord(b []byte) (payload []byte, n int, ok bool) {
	if len(b) < recordHead || b[0] != recordMark {
		return nil, 0, false
	}
	size := binary.LittleEndian.Uint32(b[1:])
	if size > maxRecord || int(size) > len(b)-recordHead {
		return nil, 0, false
	}
	payload = b[recordHead : recordHead+int(size)]
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[5:]) {
		return nil, 0, false
	}
	return payload, recordHead + int(size), true
}

func (e *Entry) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, e.Number)
	dst = binary.AppendUvarint(dst, uint64(max(e.Time.UnixMilli(), 0)))
	k := byte(e.Kind)
	if e.Soft {
		k |= softBit
	}
	dst = append(dst, k)
	for _, s := range [...]string{e.Site, e.Host, e.Value} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// parseEntry reads a payload.
func parseEntry(b []byte) (e Entry, ok bool) {
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok, b = false, nil
			return 0
		}
		b = b[n:]
		return v
	}
	text := func() string {
		n := number()
		if n > uint64(len(b)) {
			ok, b = false, nil
			return ""
		}
		s := string(b[:n])
		b = b[n:]
		return s
	}
	ok = true
	e.Number = number()
	e.Time = time.UnixMilli(int64(number() & (1<<62 - 1)))
	if len(b) == 0 {
		return e, false
	}
	e.Kind, e.Soft = Kind(b[0]&^softBit), b[0]&softBit != 0
	b = b[1:]
	e.Site, e.Host, e.Value = text(), text(), text()
	return e, ok && len(b) == 0 && e.Number > 0 && e.Check() == nil
}

func appendHeader(dst []byte, id string, base uint64) []byte {
	p := append([]byte(magic), id...)
	return appendRecord(dst, binary.AppendUvarint(p, base))
}

func parseHeader(p []byte) (id string, base uint64, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte(magic))
	if !ok || len(rest) < 2*idBytes {
		return "", 0, false
	}
	base, n := binary.Uvarint(rest[2*idBytes:])
	return string(rest[:2*idBytes]), base, n > 0
}

const idBytes = 16

func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
