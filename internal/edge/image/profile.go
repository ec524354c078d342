package image

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// rgbProfile returns an ICC profile that is to be kept, or nil. One that says that it is sRGB is left out, as
// that is what readers assume; so is one of other colours than RGB, which what is made no longer has.
func rgbProfile(p []byte) []byte {
	if len(p) < 128 || len(p) > maxProfile || string(p[16:20]) != "RGB " || string(p[36:40]) != "acsp" {
		return nil
	}
	if d := description(p); bytes.Contains(d, []byte("sRGB")) || bytes.Contains(d, []byte("s\x00R\x00G\x00B")) {
		return nil
	}
	return p
}

// description is the tag desc of a profile, which is its name (ICC.1 section 9.2.41).
func description(p []byte) []byte {
	table := p[128:]
	if len(table) < 4 {
		return nil
	}
	n := binary.BigEndian.Uint32(table)
	for table = table[4:]; n > 0 && len(table) >= 12; n, table = n-1, table[12:] {
		if string(table[:4]) != "desc" {
			continue
		}
		at, size := uint64(binary.BigEndian.Uint32(table[4:])), uint64(binary.BigEndian.Uint32(table[8:]))
		if at+size > uint64(len(p)) {
			return nil
		}
		return p[at : at+size]
	}
	return nil
}

// inflateProfile reads the data of an iCCP chunk: a name, a zero, the method and the profile.
func inflateProfile(data []byte) []byte {
	i := bytes.IndexByte(data, 0)
	if i < 0 || i > 79 || len(data) < i+2 || data[i+1] != 0 {
		return nil
	}
	r, err := zlib.NewReader(bytes.NewReader(data[i+2:]))
	if err != nil {
		return nil
	}
	p, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err != nil || len(p) > maxProfile {
		return nil
	}
	return p
}

// jpegWithProfile puts a profile behind the SOI of a JPEG.
func jpegWithProfile(b, profile []byte) []byte {
	const most = 65533 - 2 - len(iccPrefix)
	parts := (len(profile) + most - 1) / most
	out := make([]byte, 0, len(b)+len(profile)+parts*(6+len(iccPrefix)))
	out = append(out, b[:2]...)
	for i := range parts {
		p := profile[i*most : min((i+1)*most, len(profile))]
		out = append(out, 0xff, markAPP2)
		out = binary.BigEndian.AppendUint16(out, uint16(2+len(iccPrefix)+2+len(p)))
		out = append(out, iccPrefix...)
		out = append(out, byte(i+1), byte(parts))
		out = append(out, p...)
	}
	return append(out, b[2:]...)
}

// pngWithProfile puts a profile behind the IHDR of a PNG.
func pngWithProfile(b, profile []byte) []byte {
	const ihdr = len(pngMagic) + 25
	var data bytes.Buffer
	data.WriteString("iCCPprofile\x00\x00")
	w := zlib.NewWriter(&data)
	_, _ = w.Write(profile) // memory does not fail
	_ = w.Close()
	out := make([]byte, 0, len(b)+data.Len()+8)
	out = append(out, b[:ihdr]...)
	out = binary.BigEndian.AppendUint32(out, uint32(data.Len()-4))
	out = append(out, data.Bytes()...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(data.Bytes()))
	return append(out, b[ihdr:]...)
}

// webpWithProfile puts a profile into a WebP, which needs the extended form (RFC 9649 section 2.7).
func webpWithProfile(b, profile []byte, m *raster) []byte {
	const hasProfile, hasAlpha = 0x20, 0x10
	if len(b) < 20 {
		return b
	}
	x := make([]byte, 10)
	rest := b[12:]
	if string(rest[:4]) == "VP8X" && len(rest) >= 18 {
		copy(x, rest[8:18])
		rest = rest[18:]
	} else {
		if !m.opaque {
			x[0] = hasAlpha
		}
		w, h := m.width-1, m.height-1
		x[4], x[5], x[6] = byte(w), byte(w>>8), byte(w>>16)
		x[7], x[8], x[9] = byte(h), byte(h>>8), byte(h>>16)
	}
	x[0] |= hasProfile
	out := append(make([]byte, 0, len(b)+len(profile)+64), "RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00"...)
	out = append(out, x...)
	out = append(out, "ICCP"...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(profile)))
	out = append(out, profile...)
	if len(profile)&1 != 0 {
		out = append(out, 0)
	}
	out = append(out, rest...)
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

// withProfile puts a profile into what was made.
func withProfile(b []byte, f format, profile []byte, m *raster) []byte {
	switch f {
	case jpegFormat:
		if len(m.planes) == 1 && m.planes[0].channels == 1 {
			return b // of gray, for which it is not
		}
		return jpegWithProfile(b, profile)
	case pngFormat:
		if len(m.planes) == 1 && m.planes[0].channels == 1 {
			return b
		}
		return pngWithProfile(b, profile)
	case webpFormat:
		return webpWithProfile(b, profile, m)
	}
	return b
}
