package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/relais-edge/relais/internal/edge/cache/store/segment"
)

// readKey reads the secret of the hashes: 16 bytes and their CRC32. Where it is not whole another is made
// for them, and what has hashes of the old one is not found again.
func readKey(dir segment.Dir) (key [16]byte, whole bool, err error) {
	b, f, err := readAll(dir, keyName)
	if err != nil {
		return key, false, err
	}
	if len(b) == 20 && crc32.ChecksumIEEE(b[:16]) == binary.LittleEndian.Uint32(b[16:]) {
		return [16]byte(b[:16]), true, f.Close()
	}
	return key, false, f.Close()
}

func writeKey(f segment.File, key [16]byte) error {
	b := binary.LittleEndian.AppendUint32(append([]byte(nil), key[:]...), crc32.ChecksumIEEE(key[:]))
	_, err := f.WriteAt(b, 0)
	return errors.Join(err, f.Truncate(int64(len(b))), f.Sync(), f.Close())
}
