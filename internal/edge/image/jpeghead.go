package image

import (
	"bytes"
	"encoding/binary"
)

// The markers of JPEG (ITU T.81 table B.1) that are looked at.
const (
	markSOF0 = 0xc0
	markSOF2 = 0xc2
	markDHT  = 0xc4
	markJPG  = 0xc8
	markDAC  = 0xcc
	markSOS  = 0xda
	markAPP1 = 0xe1
	markAPP2 = 0xe2
	markAPPE = 0xee
)

// iccPrefix begins an APP2 segment with a part of an ICC profile: it is followed by a number from 1 and a count.
const iccPrefix = "ICC_PROFILE\x00"

// maxProfile bounds a profile that is kept: a larger one would outweigh a small picture.
const maxProfile = 64 << 10

// readJPEG reads the segments before the first scan.
func (h *head) readJPEG(b []byte) bool {
	var icc [][]byte
	parts := 0
	defer func() {
		if parts > 0 && len(icc) == parts {
			h.profile = rgbProfile(bytes.Join(icc, nil))
		}
	}()
	for b = b[2:]; len(b) >= 4; {
		if b[0] != 0xff {
			return false
		}
		mark := b[1]
		if mark == 0xff { // fill
			b = b[1:]
			continue
		}
		if mark == 0x01 || mark >= 0xd0 && mark <= 0xd7 { // without length
			b = b[2:]
			continue
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 2 || n+2 > len(b) {
			return false
		}
		data := b[4 : n+2]
		switch {
		case mark == markSOS:
			return h.width > 0
		case mark >= markSOF0 && mark <= 0xcf && mark != markDHT && mark != markJPG && mark != markDAC:
			if h.width > 0 || !h.readFrame(mark, data) {
				return false
			}
		case mark == markAPP1 && bytes.HasPrefix(data, []byte("Exif\x00\x00")):
			h.orientation = orientation(data[6:])
		case mark == markAPP2 && len(data) > len(iccPrefix)+2 && string(data[:len(iccPrefix)]) == iccPrefix:
			number, count := int(data[len(iccPrefix)]), int(data[len(iccPrefix)+1])
			if number == len(icc)+1 {
				icc, parts = append(icc, data[len(iccPrefix)+2:]), count
			}
		case mark == markAPPE && len(data) >= 12 && string(data[:5]) == "Adobe":
			// 0 with three components is RGB, which the decoder knows; 2 is YCCK.
			h.foreign = h.foreign || data[11] > 1
		}
		b = b[n+2:]
	}
	return false
}

// readFrame reads a start of frame: SOF0 to SOF2 with 8 bits and one or three components can be read here.
func (h *head) readFrame(mark byte, data []byte) bool {
	if len(data) < 6 || len(data) < 6+3*int(data[5]) {
		return false
	}
	h.height, h.width = int(binary.BigEndian.Uint16(data[1:])), int(binary.BigEndian.Uint16(data[3:]))
	components := int(data[5])
	if mark > markSOF2 || data[0] != 8 || components != 1 && components != 3 {
		h.foreign = true
	}
	// Samples of all components for each of the largest, rounded up; a progressive one keeps four bytes of
	// coefficients beside each sample.
	most, sum := 1, 0
	for i := range components {
		s := int(data[7+3*i]>>4) * int(data[7+3*i]&15)
		most, sum = max(most, s), sum+s
	}
	h.perPixel = max((sum+most-1)/most, 1)
	if mark == markSOF2 {
		h.perPixel *= 5
	}
	return true
}

// orientation finds the tag Orientation in the first directory of Exif's TIFF; 1 when it is not there.
func orientation(b []byte) int {
	b = bytes.TrimPrefix(b, []byte("Exif\x00\x00"))
	if len(b) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.BigEndian
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
	default:
		return 1
	}
	at := uint64(order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return 1
	}
	n := int(order.Uint16(b[at:]))
	for b = b[at+2:]; n > 0 && len(b) >= 12; n, b = n-1, b[12:] {
		if order.Uint16(b) != 0x0112 {
			continue
		}
		if v := int(order.Uint16(b[8:])); order.Uint16(b[2:]) == 3 && v >= 1 && v <= 8 {
			return v
		}
		return 1
	}
	return 1
}
