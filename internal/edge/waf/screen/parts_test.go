package screen

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"strings"
	"testing"
)

func TestFormOfParts(t *testing.T) {
	const part = "--xX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n"
	for body, want := range map[string]partsForm{
		part + "--xX--":                                       partsGood,
		part + "--xX--\r\n":                                   partsGood,
		part + part + "--xX--\r\nepilogue":                    partsGood,
		"--xX\r\n\r\nno head\r\n--xX--":                       partsGood,
		"--xX\r\nA: b\r\n\tc\r\n\r\n\r\n--xX--":               partsGood,
		"--xX\r\nA: b\r\n\r\n--xXy\r\n--xX-- is it\r\n--xX--": partsGood,
		"--xX--":                         partsGood,
		"":                               partsBroken,
		"preamble\r\n":                   partsBroken,
		"--xX\r\nA: --xX--":              partsBroken,
		"--xX\r\nA: b\r\n\r\nv --xX--":   partsBroken,
		"preamble\r\n" + part + "--xX--": partsOdd,
		"--xX \r\nA: b\r\n\r\n--xX--":    partsOdd,
		"--xX\nA: b\n\n--xX--":           partsOdd,
		part:                             partsBroken,
		part + "--xX":                    partsBroken,
		part + "--xX\r\nContent-Disp":    partsBroken,
		part + "--xX\r\nContent-Disp\r\n\r\n--xX--":                     partsBroken,
		"--xX\r\nA\r\n" + part + "--xX--":                               partsBroken,
		part + "--xX\r\nContent-Disposition: form-data; name=a\r\n\r\n": partsBroken,
		strings.Repeat(part, maxParts+1) + "--xX--":                     partsOdd,
	} {
		if got := formOfParts([]byte(body), "xX"); got != want {
			t.Errorf("%d, want %d: %.200q", got, want, body)
		}
	}
}

// TestGoodPartsAreNotTakenForBroken: what a client can write, whose boundary begins no line of its own, is looked at further.
func TestGoodPartsAreNotTakenForBroken(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := range r.IntN(5) {
			var p io.Writer
			var err error
			if r.IntN(2) == 0 {
				p, err = w.CreateFormField(fmt.Sprint("n", i))
			} else {
				p, err = w.CreateFormFile(fmt.Sprint("n", i), "f.txt")
			}
			if err != nil {
				t.Fatal(err)
			}
			for range r.IntN(6) {
				_, _ = io.WriteString(p, []string{"\r\n", "--", "x" + w.Boundary(), "\r\n--" + w.Boundary() + "x", "text: ", "\r\n\r\n", "\n"}[r.IntN(7)])
			}
		}
		_ = w.Close()
		mr := multipart.NewReader(bytes.NewReader(b.Bytes()), w.Boundary())
		good := true
		for {
			p, err := mr.NextPart()
			if err == nil {
				_, err = io.Copy(io.Discard, p)
			}
			if err != nil {
				good = err == io.EOF
				break
			}
		}
		if got := formOfParts(b.Bytes(), w.Boundary()); good && got == partsBroken {
			t.Fatalf("%d of a body that the library reads: %q", got, b.Bytes())
		}
	}
}
