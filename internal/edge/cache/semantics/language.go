package semantics

import (
	"bytes"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/http/syntax"
)

// maxLangRanges bounds the members of an Accept-Language that are looked at.
const maxLangRanges = 32

// langRange is a member of Accept-Language (RFC 9110 section 12.5.4).
type langRange struct {
	tag    []byte
	weight int // 0 to 1000
}

// Language chooses among the languages that an origin has the one that fits Accept-Language best, by lookup (RFC
// 4647 section 3.4): each range, from the heaviest on, is shortened until it is one of them. What weighs 0 is not
// chosen by a range. It returns an index: 0, the default, when nothing fits, nothing is asked for or all is
// equally good (*).
func Language(f *message.Fields, languages [][]byte) int {
	var list [maxLangRanges]langRange
	n := 0
	for i := f.Next(message.AcceptLanguage, 0); i >= 0; i = f.Next(message.AcceptLanguage, i+1) {
		_, _, v := f.At(i)
		for n < maxLangRanges {
			m, rest, ok := nextName(v)
			if !ok {
				break
			}
			v = rest
			tag, params, _ := cut(m, ';')
			weight, _ := syntax.Weight(params) // 0 when it cannot be read
			list[n] = langRange{trim(tag), weight}
			n++
		}
	}
	for range n {
		best := -1
		for i := range n {
			if list[i].weight > 0 && (best < 0 || list[i].weight > list[best].weight) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		if at := lookup(list[best].tag, languages, list[:n]); at >= 0 {
			return at
		}
		list[best].weight = -1
	}
	return 0
}

// lookup shortens a range until it is one of languages and not refused by another range; -1 when it never is.
func lookup(r []byte, languages [][]byte, all []langRange) int {
	if len(r) == 1 && r[0] == '*' {
		return -1 // it is what the default is for (RFC 4647 section 3.4)
	}
	for len(r) > 0 {
		for i, l := range languages {
			if equalFold(r, l) && !refused(l, all) {
				return i
			}
		}
		i := bytes.LastIndexByte(r, '-')
		if i < 0 {
			return -1
		}
		if r = r[:i]; i >= 2 && r[i-2] == '-' {
			r = r[:i-2] // a single letter goes with what it introduces
		}
	}
	return -1
}

// refused says whether a range with a weight of 0 is the language.
func refused(l []byte, all []langRange) bool {
	for i := range all {
		if all[i].weight == 0 && equalFold(all[i].tag, l) {
			return true
		}
	}
	return false
}

// maxAgent bounds the bytes of a User-Agent that are looked at.
const maxAgent = 512

var (
	mobileDevice  = []byte("mobile")
	tabletDevice  = []byte("tablet")
	desktopDevice = []byte("desktop")
)

// IsDevice says whether a text is one that Device gives.
func IsDevice(b []byte) bool {
	return bytes.Equal(b, mobileDevice) || bytes.Equal(b, tabletDevice) || bytes.Equal(b, desktopDevice)
}

// Device tells the class of a visitor's device: mobile, tablet or desktop, which is what cannot be told too. A
// Sec-CH-UA-Mobile of ?1 says mobile (User-Agent Client Hints section 3.3); else words of User-Agent tell.
func Device(f *message.Fields) []byte {
	if string(trim(f.Lookup("Sec-CH-UA-Mobile"))) == "?1" {
		return mobileDevice
	}
	ua := f.Get(message.UserAgent)
	ua = ua[:min(len(ua), maxAgent)]
	has := func(word string) bool { return bytes.Contains(ua, []byte(word)) }
	android, mobile := has("Android"), has("Mobi")
	switch {
	case has("iPad"), has("Tablet"), has("PlayBook"), has("Kindle"):
		return tabletDevice
	case android && (has("TV") || has("AFT")):
		return desktopDevice
	case android && !mobile:
		return tabletDevice
	case mobile, android, has("iPhone"), has("iPod"), has("Windows Phone"), has("BlackBerry"), has("Opera Mini"):
		return mobileDevice
	}
	return desktopDevice
}
