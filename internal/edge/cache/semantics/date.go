package semantics

import "time"

// ParseDate reads an HTTP-date in any of the three forms of RFC 9110 section 5.6.7, in any case
// (RFC 9111 section 4.2), as seconds since 1970. Now tells the century of a two-digit year: it
// is never more than 50 years ahead. A zone other than GMT is not a date.
func ParseDate(b []byte, now time.Time) (unix int64, ok bool) {
	b = trim(b)
	switch {
	case len(b) == 29 && b[3] == ',':
		return imfFixdate(b)
	case len(b) == 24:
		return asctime(b)
	}
	for i, c := range b {
		if c == ',' {
			return rfc850(b, i, now)
		}
	}
	return 0, false
}

// imfFixdate reads "Sun, 06 Nov 1994 08:49:37 GMT".
func imfFixdate(b []byte) (int64, bool) {
	if !weekday(b[:3], 3) || b[4] != ' ' || b[7] != ' ' || b[11] != ' ' || b[16] != ' ' || b[25] != ' ' || !fold(b[26:], "gmt") {
		return 0, false
	}
	d, ok1 := digits(b[5:7])
	m, ok2 := month(b[8:11])
	y, ok3 := digits(b[12:16])
	s, ok4 := clock(b[17:25])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return 0, false
	}
	return unixOf(y, m, d, s)
}

// asctime reads "Sun Nov  6 08:49:37 1994".
func asctime(b []byte) (int64, bool) {
	if !weekday(b[:3], 3) || b[3] != ' ' || b[7] != ' ' || b[10] != ' ' || b[19] != ' ' {
		return 0, false
	}
	day := b[8:10]
	if day[0] == ' ' {
		day = day[1:]
	}
	m, ok1 := month(b[4:7])
	d, ok2 := digits(day)
	s, ok3 := clock(b[11:19])
	y, ok4 := digits(b[20:24])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return 0, false
	}
	return unixOf(y, m, d, s)
}

// rfc850 reads "Sunday, 06-Nov-94 08:49:37 GMT"; comma is the index of the comma.
func rfc850(b []byte, comma int, now time.Time) (int64, bool) {
	if !weekday(b[:comma], 0) {
		return 0, false
	}
	b = b[comma+1:]
	if len(b) != 23 || b[0] != ' ' || b[3] != '-' || b[7] != '-' || b[10] != ' ' || b[19] != ' ' || !fold(b[20:], "gmt") {
		return 0, false
	}
	d, ok1 := digits(b[1:3])
	m, ok2 := month(b[4:7])
	y, ok3 := digits(b[8:10])
	s, ok4 := clock(b[11:19])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return 0, false
	}
	year := now.UTC().Year()
	y += year - year%100
	if y > year+50 {
		y -= 100
	} else if y <= year-50 {
		y += 100
	}
	return unixOf(y, m, d, s)
}

var (
	weekdays = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	months   = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	daysIn   = [...]int{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
)

// weekday says whether b is a day's name, its first n letters when n is not 0.
func weekday(b []byte, n int) bool {
	for _, w := range weekdays {
		if n != 0 {
			w = w[:n]
		}
		if fold(b, w) {
			return true
		}
	}
	return false
}

func month(b []byte) (int, bool) {
	for i, m := range months {
		if fold(b, m) {
			return i + 1, true
		}
	}
	return 0, false
}

// fold says whether b is s, which is in lower case, whatever b's case.
func fold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower(b[i]) != s[i] {
			return false
		}
	}
	return true
}

func digits(b []byte) (v int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

// clock reads hh:mm:ss as seconds of the day.
func clock(b []byte) (int64, bool) {
	h, ok1 := digits(b[0:2])
	m, ok2 := digits(b[3:5])
	s, ok3 := digits(b[6:8])
	if !ok1 || !ok2 || !ok3 || b[2] != ':' || b[5] != ':' || h > 23 || m > 59 || s > 60 {
		return 0, false
	}
	return int64(h*3600 + m*60 + s), true
}

func unixOf(y, m, d int, sec int64) (int64, bool) {
	if d < 1 || d > daysIn[m-1] || m == 2 && d == 29 && (y%4 != 0 || y%100 == 0 && y%400 != 0) {
		return 0, false
	}
	// Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
	if m <= 2 {
		y--
		m += 12
	}
	days := int64(365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 719469)
	return days*86400 + sec, true
}

// AppendDate appends t as an IMF-fixdate (RFC 9110 section 5.6.7).
func AppendDate(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
}
