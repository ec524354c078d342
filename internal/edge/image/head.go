package image

import (
	"encoding/binary"
)

// kind is what an original is.
type kind uint8

// The kinds that can be read here.
const (
	unknown kind = iota
	jpegKind
	pngKind
	webpKind
	gifKind
)

// format is that in which a picture of this kind is sent when it keeps its format as far as possible.
func (k kind) format() format {
	switch k {
	case jpegKind:
		return jpegFormat
	case webpKind:
		return webpFormat
	}
	return pngFormat
}

// magicLen is how many bytes tell the kind.
const magicLen = 12

// kindOf tells the kind by the first bytes, of which there are magicLen.
func kindOf(b []byte) kind {
	switch {
	case len(b) < magicLen:
	case b[0] == 0xff && b[1] == 0xd8 && b[2] == 0xff:
		return jpegKind
	case string(b[:8]) == pngMagic:
		return pngKind
	case string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return webpKind
	case string(b[:6]) == "GIF87a", string(b[:6]) == "GIF89a":
		return gifKind
	}
	return unknown
}

const pngMagic = "\x89PNG\r\n\x1a\n"

// head is what the head of a picture says of it.
type head struct {
	kind          kind
	width, height int
	animated      bool
	// foreign says that the picture is one whose colours or coding cannot be read faithfully here.
	foreign bool
	// orientation as Exif has it, 1 to 8 (tag 0x0112).
	orientation int
	// profile is an ICC profile of RGB colours that are not sRGB's; nil when there is none.
	profile []byte
	// perPixel is what reading the picture takes at most, in bytes a pixel, rounded up.
	perPixel int
}

// turned says whether the picture lies on its side.
func (h *head) turned() bool { return h.orientation >= 5 }

// readHead reads the head of a picture. False means that it is damaged.
func readHead(b []byte) (h head, ok bool) {
	h.kind, h.orientation = kindOf(b), 1
	switch h.kind {
	case jpegKind:
		ok = h.readJPEG(b)
	case pngKind:
		ok = h.readPNG(b)
	case webpKind:
		ok = h.readWebP(b)
	case gifKind:
		ok = h.readGIF(b)
	}
	return h, ok && h.width > 0 && h.height > 0
}

// readPNG reads the chunks before the first of the picture (PNG, Third Edition, section 5).
func (h *head) readPNG(b []byte) bool {
	b = b[len(pngMagic):]
	for first := true; len(b) >= 12; first = false {
		n := binary.BigEndian.Uint32(b)
		name := string(b[4:8])
		if uint64(n)+12 > uint64(len(b)) {
			// The last chunk of the head may be cut; the decoder will say so.
			return h.width > 0 && name == "IDAT"
		}
		data := b[8 : 8+n]
		switch name {
		case "IHDR":
			if !first || n != 13 {
				return false
			}
			w, t := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
			if w > 1<<31-1 || t > 1<<31-1 {
				return false
			}
			h.width, h.height = int(w), int(t)
			// Deep or interlaced ones take more: 8 bytes a pixel, and a pass beside the whole.
			h.perPixel = 4
			if data[8] == 16 {
				h.perPixel = 8
			}
			if data[12] != 0 {
				h.perPixel *= 2
			}
		case "acTL":
			h.animated = true
		case "iCCP":
			h.profile = rgbProfile(inflateProfile(data))
		case "eXIf":
			h.orientation = orientation(data)
		case "IDAT", "IEND":
			return h.width > 0
		}
		if first && h.width == 0 {
			return false
		}
		b = b[12+n:]
	}
	return false
}

// readWebP reads the chunks of a RIFF container (RFC 9649 section 2).
func (h *head) readWebP(b []byte) bool {
	b = b[12:]
	for len(b) >= 8 {
		n := uint64(binary.LittleEndian.Uint32(b[4:]))
		name := string(b[:4])
		data := b[8:min(8+n, uint64(len(b)))]
		switch name {
		case "VP8X":
			if len(data) < 10 {
				return false
			}
			h.animated = data[0]&2 != 0
			h.width, h.height = 1+uint24(data[4:]), 1+uint24(data[7:])
			h.perPixel = 8
		case "VP8 ":
			if len(data) < 10 || data[0]&1 != 0 || string(data[3:6]) != "\x9d\x01\x2a" {
				return false
			}
			w, t := int(binary.LittleEndian.Uint16(data[6:])&0x3fff), int(binary.LittleEndian.Uint16(data[8:])&0x3fff)
			return h.webpSize(w, t) && h.webpTail(b, n)
		case "VP8L":
			if len(data) < 5 || data[0] != 0x2f {
				return false
			}
			bits := binary.LittleEndian.Uint32(data[1:])
			return h.webpSize(int(bits&0x3fff)+1, int(bits>>14&0x3fff)+1) && h.webpTail(b, n)
		case "ICCP":
			h.profile = rgbProfile(data)
		case "ANIM", "ANMF":
			h.animated = true
			return h.width > 0
		}
		n += n & 1
		if n+8 > uint64(len(b)) {
			return false
		}
		b = b[8+n:]
	}
	return false
}

// webpSize holds the size of the picture to that of the canvas.
func (h *head) webpSize(w, t int) bool {
	if h.width == 0 {
		h.width, h.height, h.perPixel = w, t, 8
	}
	return h.width == w && h.height == t
}

// webpTail looks for what may stand behind the picture, whose chunk is the first of b and n long.
func (h *head) webpTail(b []byte, n uint64) bool {
	for range 8 {
		n += n & 1
		if n+8 > uint64(len(b)) {
			return true
		}
		b = b[8+n:]
		if len(b) < 8 {
			return true
		}
		n = uint64(binary.LittleEndian.Uint32(b[4:]))
		if string(b[:4]) == "EXIF" {
			h.orientation = orientation(b[8:min(8+n, uint64(len(b)))])
		}
	}
	return true
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// readGIF counts frames up to the second (GIF89a sections 18 to 27).
func (h *head) readGIF(b []byte) bool {
	if len(b) < 13 {
		return false
	}
	h.width, h.height = int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:]))
	h.perPixel = 5
	flags := b[10]
	b = b[13:]
	table := func(flags byte) bool {
		if flags&0x80 == 0 {
			return true
		}
		n := 3 << (flags&7 + 1)
		if n > len(b) {
			return false
		}
		b = b[n:]
		return true
	}
	blocks := func() bool {
		for len(b) > 0 {
			n := int(b[0])
			if n+1 > len(b) {
				return false
			}
			b = b[n+1:]
			if n == 0 {
				return true
			}
		}
		return false
	}
	if !table(flags) {
		return false
	}
	frames := 0
	for len(b) > 0 {
		introducer := b[0]
		b = b[1:]
		switch introducer {
		case ',':
			if frames++; frames > 1 {
				h.animated = true
				return true
			}
			if len(b) < 10 {
				return false
			}
			flags := b[8]
			b = b[9:]
			if !table(flags) || len(b) == 0 {
				return false
			}
			b = b[1:] // the code size
			if !blocks() {
				return false
			}
		case '!':
			if len(b) == 0 {
				return false
			}
			b = b[1:]
			if !blocks() {
				return false
			}
		case ';':
			return frames > 0
		default:
			return false
		}
	}
	return frames > 0
}
