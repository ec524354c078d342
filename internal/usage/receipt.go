package usage

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Kinds of receipts. What is receipted is never changed: what comes late has a receipt of its own, and all receipts of a day
// add up.
const (
	KindUsage      = "usage"      // what was known of a day when it was closed
	KindContinued  = "continued"  // more of the same, as a receipt has at most MaxLines
	KindCorrection = "correction" // what came after the day was closed
)

// MaxLines bounds a receipt.
const MaxLines = 5_000

// Line is what a site used in an hour at a PoP, as far as no earlier receipt says it.
type Line struct {
	Site string `json:"site"`
	Pop  string `json:"pop"`
	Hour Hour   `json:"hour"`
	Counts
}

func compareLines(a, b Line) int {
	return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Pop, b.Pop))
}

// Receipt says what an organization used on a day. Receipts of an organization are a chain: each holds the hash of the one
// before, and each hash is signed by the operator. The hash is over the fields before Sums, which hold that of Sums, so that
// a receipt whose sums were erased can still be verified.
type Receipt struct {
	Organization string    `json:"organization"`
	Number       int64     `json:"number"` // 1, 2, 3 ... of the organization
	Day          Day       `json:"day"`
	Kind         string    `json:"kind"`
	Made         time.Time `json:"made"`
	Former       string    `json:"former"` // hash of the one before; empty before the first
	Lines        int       `json:"lines"`
	LinesHash    string    `json:"linesHash"` // SHA-256 of the JSON of Sums, hexadecimal
	Total        Counts    `json:"total"`

	Sums   []Line `json:"sums,omitempty"` // by hour, site and PoP
	Erased bool   `json:"erased,omitempty"`

	Hash      string `json:"hash"`      // SHA-256 of the JSON of the fields before Sums, hexadecimal
	Key       string `json:"key"`       // the operator's public key, ed25519, base64
	Signature string `json:"signature"` // of signed(Hash), base64
}

// signed is what a signature is over: no other signature of the same key can be taken for one of a receipt.
func signed(hash string) []byte { return []byte("relais usage receipt 1\n" + hash) }

func hashOf(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("usage: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// hash is over what stays when the sums are erased.
func (r *Receipt) hash() (string, error) {
	return hashOf(struct {
		Organization string    `json:"organization"`
		Number       int64     `json:"number"`
		Day          Day       `json:"day"`
		Kind         string    `json:"kind"`
		Made         time.Time `json:"made"`
		Former       string    `json:"former"`
		Lines        int       `json:"lines"`
		LinesHash    string    `json:"linesHash"`
		Total        Counts    `json:"total"`
	}{r.Organization, r.Number, r.Day, r.Kind, r.Made, r.Former, r.Lines, r.LinesHash, r.Total})
}

// Seal orders the sums, and fills in what follows from them, hash and signature.
func (r *Receipt) Seal(key ed25519.PrivateKey) (err error) {
	slices.SortFunc(r.Sums, compareLines)
	r.Made = r.Made.UTC()
	r.Lines, r.Total = len(r.Sums), Counts{}
	for i := range r.Sums {
		r.Total.Add(&r.Sums[i].Counts)
	}
	if r.LinesHash, err = hashOf(r.Sums); err != nil {
		return err
	}
	if r.Hash, err = r.hash(); err != nil {
		return err
	}
	public, _ := key.Public().(ed25519.PublicKey)
	r.Key = FormatKey(public)
	r.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, signed(r.Hash)))
	return r.check()
}

// Erase removes the sums and leaves what proves that they were there, and what they came to in all.
func (r *Receipt) Erase() { r.Sums, r.Erased = nil, true }

// FormatKey writes a public key as people pass it on.
func FormatKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// ParseKey reads what FormatKey wrote.
func ParseKey(text string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: %q is no public key; it is 32 bytes in base64", ErrInvalid, text)
	}
	return b, nil
}

// check says what is wrong with a receipt by itself, its hash and signature apart.
func (r *Receipt) check() error {
	switch {
	case !name(r.Organization):
		return fmt.Errorf("%w: organization %q", ErrInvalid, r.Organization)
	case r.Number < 1 || r.Number > MaxCount:
		return fmt.Errorf("%w: number %d", ErrInvalid, r.Number)
	case !r.Day.First().Valid():
		return fmt.Errorf("%w: day %d", ErrInvalid, r.Day)
	case r.Kind != KindUsage && r.Kind != KindContinued && r.Kind != KindCorrection:
		return fmt.Errorf("%w: kind %q", ErrInvalid, r.Kind)
	case r.Lines < 1 || r.Lines > MaxLines:
		return fmt.Errorf("%w: %d lines; a receipt has 1 to %d", ErrInvalid, r.Lines, MaxLines)
	case r.Erased && len(r.Sums) > 0:
		return fmt.Errorf("%w: it says that its sums are erased, and has some", ErrInvalid)
	}
	if r.Erased {
		return nil
	}
	if len(r.Sums) != r.Lines {
		return fmt.Errorf("%w: it has %d lines and says %d", ErrInvalid, len(r.Sums), r.Lines)
	}
	var total Counts
	for i := range r.Sums {
		l := &r.Sums[i]
		if i > 0 && compareLines(r.Sums[i-1], *l) >= 0 {
			return fmt.Errorf("%w: line %d is not in order", ErrInvalid, i+1)
		}
		if err := l.check(r.Day); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
		total.Add(&l.Counts)
	}
	if total != r.Total {
		return fmt.Errorf("%w: its lines do not add up to its total", ErrInvalid)
	}
	return nil
}

func (l *Line) check(day Day) error {
	switch {
	case !siteName(l.Site):
		return fmt.Errorf("%w: site %q", ErrInvalid, l.Site)
	case !name(l.Pop):
		return fmt.Errorf("%w: PoP %q", ErrInvalid, l.Pop)
	case l.Hour.Day() != day:
		return fmt.Errorf("%w: %s is not on that day", ErrInvalid, l.Hour.Time().Format(time.RFC3339))
	}
	for _, n := range l.List() {
		if n < 0 || n == math.MaxInt64 {
			return fmt.Errorf("%w: a count of %d", ErrInvalid, n)
		}
	}
	return nil
}

// BreakError is the first receipt that is not as the operator wrote it, and why.
type BreakError struct {
	Number int64 // of the receipt; 0 when it is not known
	Line   int   // of the file, from 1
	Why    string
}

// Error says which and why.
func (e *BreakError) Error() string {
	if e.Number == 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Why)
	}
	return fmt.Sprintf("receipt %d (line %d): %s", e.Number, e.Line, e.Why)
}

// Anchor is a receipt that was noted elsewhere: a chain that lost it, or its end, is not the chain of then.
type Anchor struct {
	Number int64  `json:"number"`
	Hash   string `json:"hash"`
}

// Summary is what verified receipts say.
type Summary struct {
	Organization string   `json:"organization"`
	First        int64    `json:"first"` // number of the first receipt; those before it are not looked at
	Last         Anchor   `json:"last"`  // to note, for the next time
	Receipts     int      `json:"receipts"`
	Corrections  int      `json:"corrections"`
	Erased       int      `json:"erased"` // whose sums are gone: of them only the totals are proved
	From         Day      `json:"from"`
	To           Day      `json:"to"`
	Total        Counts   `json:"total"`
	Keys         []string `json:"keys"` // that signed
	KeyChecked   bool     `json:"keyChecked"`
}

// Verifier reads a chain of receipts, and remembers no more of it than its end.
type Verifier struct {
	keys    []ed25519.PublicKey
	anchors map[int64]string
	sum     Summary
	closed  Day // the newest day that was closed
	line    int
}

// NewVerifier makes a verifier. Keys are those that the operator signs with, as they are known from elsewhere; without any, the
// receipts prove only that they belong together.
func NewVerifier(keys []ed25519.PublicKey, anchors ...Anchor) *Verifier {
	v := &Verifier{keys: keys, anchors: map[int64]string{}, closed: math.MinInt64}
	v.sum.KeyChecked = len(keys) > 0
	for _, a := range anchors {
		v.anchors[a.Number] = a.Hash
	}
	return v
}

// Next looks at the next receipt; a *BreakError says what is wrong.
func (v *Verifier) Next(r *Receipt) error {
	v.line++
	why := v.examine(r)
	if why != "" {
		return &BreakError{r.Number, v.line, why}
	}
	s := &v.sum
	if s.Receipts == 0 {
		s.Organization, s.First, s.From, s.To = r.Organization, r.Number, r.Day, r.Day
	}
	s.Receipts++
	s.From, s.To = min(s.From, r.Day), max(s.To, r.Day)
	s.Last = Anchor{r.Number, r.Hash}
	s.Total.Add(&r.Total)
	if r.Kind == KindCorrection {
		s.Corrections++
	}
	if r.Erased {
		s.Erased++
	}
	if !slices.Contains(s.Keys, r.Key) {
		s.Keys = append(s.Keys, r.Key)
	}
	if r.Kind == KindUsage {
		v.closed = r.Day
	}
	delete(v.anchors, r.Number)
	return nil
}

// examine says what is wrong; empty for nothing.
func (v *Verifier) examine(r *Receipt) string {
	if err := r.check(); err != nil {
		return err.Error()
	}
	last := v.sum.Last
	switch first := v.sum.Receipts == 0; {
	case !first && r.Organization != v.sum.Organization:
		return fmt.Sprintf("it is of %s, and those before are of %s", r.Organization, v.sum.Organization)
	case !first && r.Number != last.Number+1:
		return fmt.Sprintf("receipt %d is missing", last.Number+1)
	case !first && r.Former != last.Hash, first && r.Number == 1 && r.Former != "":
		return "it does not follow the one before, which was replaced"
	case r.Kind == KindUsage && r.Day <= v.closed:
		return "the day was closed before; what comes later is a correction"
	}
	if !r.Erased {
		if h, err := hashOf(r.Sums); err != nil || h != r.LinesHash {
			return "its lines were changed: their hash is another"
		}
	}
	if h, err := r.hash(); err != nil || h != r.Hash {
		return "it was changed: its hash is another"
	}
	if h, ok := v.anchors[r.Number]; ok && h != r.Hash {
		return "it is not the receipt that was noted"
	}
	return v.signature(r)
}

func (v *Verifier) signature(r *Receipt) string {
	key, err := ParseKey(r.Key)
	sig, err2 := base64.StdEncoding.DecodeString(r.Signature)
	switch {
	case err != nil || err2 != nil || !ed25519.Verify(key, signed(r.Hash), sig):
		return "its signature is wrong"
	case len(v.keys) > 0 && !slices.ContainsFunc(v.keys, func(k ed25519.PublicKey) bool { return k.Equal(key) }):
		return "it is signed by " + r.Key + ", which is not the operator's key"
	}
	return ""
}

// End gives the summary, or says that the chain's end is missing.
func (v *Verifier) End() (Summary, error) {
	for n := range v.anchors {
		if n > v.sum.Last.Number || n >= v.sum.First && v.sum.Receipts > 0 {
			return v.sum, &BreakError{n, v.line + 1, "it is missing: it was noted, and the receipts end before it"}
		}
	}
	return v.sum, nil
}

// maxReceiptLine bounds a receipt's line in a file: MaxLines lines of some 400 bytes.
const maxReceiptLine = 4 << 20

// VerifyFile reads receipts, one to a line as JSON, and gives what they say, or the first that is wrong as a *BreakError.
func VerifyFile(from io.Reader, v *Verifier) (Summary, error) {
	err := ReadReceipts(from, v.Next)
	if err != nil {
		return v.sum, err
	}
	return v.End()
}

// ReadReceipts reads receipts, one to a line as JSON. It takes no fields that receipts do not have: nothing in the file is
// outside of what is signed.
func ReadReceipts(from io.Reader, fn func(*Receipt) error) error {
	in := newLines(from, maxReceiptLine)
	for {
		text, err := in.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		var r Receipt
		if err := dec.Decode(&r); err != nil {
			return &BreakError{Line: in.n, Why: "it is no receipt: " + err.Error()}
		}
		if dec.More() {
			return &BreakError{Number: r.Number, Line: in.n, Why: "there is more on its line"}
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
}
