package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// RequestFormat is the number of the form of a recorded Request. A reader refuses a newer one.
const RequestFormat = 1

// Request is a recorded request, redacted, and what became of it: a line of the export (NDJSON).
type Request struct {
	Format int `json:"v"`
	// Raw says that texts have a character (up to U+00FF) for each byte, as some are not UTF-8. A request that
	// was read has it false, and its texts as they came.
	Raw          bool      `json:"raw,omitempty"`
	ID           string    `json:"id"`
	Time         time.Time `json:"time"`
	Revision     string    `json:"revision,omitempty"` // of the documents that were in service
	Organization string    `json:"organization,omitempty"`
	// Client is the visitor's address, its last part hidden. Trusted says that a trusted proxy stood in between.
	Client     string `json:"client"`
	Trusted    bool   `json:"trusted,omitempty"`
	Listener   string `json:"listener,omitempty"`
	Proto      string `json:"proto"` // HTTP/1.0, HTTP/1.1, HTTP/2 or HTTP/3
	Secure     bool   `json:"secure,omitempty"`
	ServerName string `json:"sni,omitempty"`
	Method     string `json:"method"`
	Authority  string `json:"authority"`
	Path       string `json:"path"`
	// Query is nil when the target has no "?".
	Query  *string `json:"query,omitempty"`
	Fields []Field `json:"fields,omitempty"`
	Body   *Body   `json:"body,omitempty"`

	Visitor Visitor `json:"visitor,omitzero"`
	// Answer is what the visitor, or before it the cache, was given; its fields are those that say how it may
	// be stored, and what it is.
	Answer  Answer  `json:"answer"`
	Outcome Outcome `json:"outcome"`
	Millis  float64 `json:"ms"`
}

// Field is one line of a head.
type Field [2]string

// Body is what was kept of a request's body.
type Body struct {
	// Text is the beginning of the body, in which bytes that are not UTF-8 make it be Base64.
	Text   string `json:"text,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
	// Size is how long the body was, -1 when that is not known; Cut says that there was more than is kept.
	Size int64 `json:"size"`
	Cut  bool  `json:"cut,omitempty"`
}

// Bytes are the bytes that were kept.
func (b *Body) Bytes() []byte {
	if b == nil {
		return nil
	}
	if b.Base64 != nil {
		return b.Base64
	}
	return []byte(b.Text)
}

// setBytes keeps a copy of data.
func (b *Body) setBytes(data []byte) {
	if utf8.Valid(data) {
		b.Text = string(data)
		return
	}
	b.Base64 = bytes.Clone(data)
}

// Visitor is who sent a request, as the visitor stage knew it.
type Visitor struct {
	Class string `json:"class,omitempty"` // empty for anonymous
	Key   uint64 `json:"key,omitempty"`   // hashed; the same for the same visitor
	Tier  string `json:"tier,omitempty"`  // of the basket
}

// Answer is the head of an answer.
type Answer struct {
	Status int     `json:"status"`
	Fields []Field `json:"fields,omitempty"`
	Bytes  int64   `json:"bytes"`
	// Made says that the edge made the answer: a page, a redirect or a fixed one. No origin was asked.
	Made bool `json:"made,omitempty"`
}

// Outcome is what the stages decided.
type Outcome struct {
	Site   string `json:"site,omitempty"`
	Route  string `json:"route,omitempty"`
	Cache  string `json:"cache,omitempty"`
	Pool   string `json:"pool,omitempty"`
	Tier   string `json:"tier,omitempty"`
	Origin string `json:"origin,omitempty"`
	Tries  int    `json:"tries,omitempty"`
	Spill  string `json:"spill,omitempty"`
	Full   string `json:"full,omitempty"`
	Code   string `json:"code,omitempty"`
	Side   string `json:"side,omitempty"`
	Abort  string `json:"abort,omitempty"`
	// Marks are the decisions in order, as stage and code.
	Marks [][2]string `json:"marks,omitempty"`
}

// maxLine bounds a line of a record that is read.
const maxLine = 4 << 20

// Errors of a record that is read.
var (
	ErrLineTooLong = fmt.Errorf("is longer than %d MiB", maxLine>>20)
	errNewer       = errors.New("is of a newer form than this version reads; use the version that wrote it")
)

// LineError says which line of a record is bad. The others can be read.
type LineError struct {
	Line int
	Err  error
}

// Error implements error.
func (e *LineError) Error() string { return fmt.Sprintf("line %d %v", e.Line, e.Err) }

// Unwrap gives the cause.
func (e *LineError) Unwrap() error { return e.Err }

// ReadRequests calls each with the requests of a record. Bad lines, of which the last of a process that was
// killed may be one, are told by bad, which may end the reading with its error.
func ReadRequests(r io.Reader, each func(*Request) error, bad func(*LineError) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for n := 1; ; n++ {
		line = line[:0]
		tooLong := false
		var err error
		for {
			var part []byte
			part, err = in.ReadSlice('\n')
			if len(line)+len(part) > maxLine {
				tooLong = true
			} else {
				line = append(line, part...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		end := err == io.EOF
		if text := bytes.TrimSpace(line); len(text) > 0 || tooLong {
			q, err := parseRequest(text)
			if tooLong {
				err = ErrLineTooLong
			}
			if err != nil {
				err = bad(&LineError{n, err})
			} else {
				err = each(q)
			}
			if err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

func parseRequest(text []byte) (*Request, error) {
	q := new(Request)
	if err := json.Unmarshal(text, q); err != nil {
		return nil, fmt.Errorf("is no recorded request: %w", err)
	}
	switch {
	case q.Format > RequestFormat:
		return nil, errNewer
	case q.Format < 1 || q.Method == "" || q.Time.IsZero():
		return nil, errors.New("is no recorded request: v, method or time is missing")
	}
	return q, q.unraw()
}

// AppendJSON appends q as a line.
func (q *Request) AppendJSON(to []byte) ([]byte, error) {
	q.setRaw()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // attacks are to be read by people
	err := e.Encode(q)
	return append(to, b.Bytes()...), errors.Join(err, q.unraw())
}
