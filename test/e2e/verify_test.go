package e2e

// The part between the marks is the program of docs/origin-lockdown.md; a test holds both together.

import (
	"os"
	"testing"
)

// begin verify
import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	inputForm     = regexp.MustCompile(`^relais=(\("@method" "@authority" "@path" "@query" "x-request-id"\);created=([0-9]{1,12});keyid="([^"]*)";alg="hmac-sha256")$`)
	signatureForm = regexp.MustCompile(`^relais=:([A-Za-z0-9+/]{43}=):$`)
)

// verify says whether r was signed by the edge within the last minute (RFC 9421).
func verify(r *http.Request, keyID string, secret []byte, now time.Time) error {
	inputs, signatures := r.Header.Values("Signature-Input"), r.Header.Values("Signature")
	if len(inputs) != 1 || len(signatures) != 1 {
		return errors.New("not signed once")
	}
	input, signature := inputForm.FindStringSubmatch(inputs[0]), signatureForm.FindStringSubmatch(signatures[0])
	if input == nil || signature == nil || input[3] != keyID {
		return errors.New("not a signature of the edge")
	}
	created, _ := strconv.ParseInt(input[2], 10, 64)
	if age := now.Unix() - created; age < -60 || age > 60 {
		return fmt.Errorf("signed %d seconds ago", age)
	}
	authority := strings.ToLower(r.Host)
	if r.TLS != nil {
		authority = strings.TrimSuffix(authority, ":443")
	} else {
		authority = strings.TrimSuffix(authority, ":80")
	}
	// As it came: URL.Path would be decoded.
	path, query, _ := strings.Cut(r.RequestURI, "?")
	base := `"@method": ` + r.Method + "\n" +
		`"@authority": ` + authority + "\n" +
		`"@path": ` + path + "\n" +
		`"@query": ?` + query + "\n" +
		`"x-request-id": ` + strings.Join(r.Header.Values("X-Request-Id"), ", ") + "\n" +
		`"@signature-params": ` + input[1]
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(base))
	given, _ := base64.StdEncoding.DecodeString(signature[1])
	if !hmac.Equal(given, mac.Sum(nil)) {
		return errors.New("the signature does not fit")
	}
	return nil
}

// end verify

func TestTheProgramOfTheDocumentationIsTheOneThatRuns(t *testing.T) {
	src, err := os.ReadFile("verify_test.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/origin-lockdown.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(src), "// begin verify\n")
	program, _, ok := strings.Cut(program, "// end verify\n")
	if !ok || !strings.Contains(string(doc), "```go\n"+strings.TrimSpace(program)+"\n```") {
		t.Error("docs/origin-lockdown.md shows another program")
	}
}

func TestASignatureThatIsOldOrForeignIsRefused(t *testing.T) {
	const input = `relais=("@method" "@authority" "@path" "@query" "x-request-id");created=1700000000;keyid="k";alg="hmac-sha256"`
	now := time.Unix(1_700_000_000, 0)
	sign := func(secret string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte("\"@method\": GET\n\"@authority\": a\n\"@path\": /x\n\"@query\": ?y\n\"x-request-id\": 1\n\"@signature-params\": " + strings.TrimPrefix(input, "relais=")))
		return "relais=:" + base64.StdEncoding.EncodeToString(mac.Sum(nil)) + ":"
	}
	for name, tc := range map[string]struct {
		change func(*http.Request)
		at     time.Duration
		ok     bool
	}{
		"good":            {func(*http.Request) {}, 30 * time.Second, true},
		"old":             {func(*http.Request) {}, 2 * time.Minute, false},
		"of the future":   {func(*http.Request) {}, -2 * time.Minute, false},
		"foreign":         {func(r *http.Request) { r.Header.Set("Signature", sign("another secret")) }, 0, false},
		"another path":    {func(r *http.Request) { r.RequestURI = "/z?y" }, 0, false},
		"another method":  {func(r *http.Request) { r.Method = "POST" }, 0, false},
		"another host":    {func(r *http.Request) { r.Host = "b" }, 0, false},
		"another request": {func(r *http.Request) { r.Header.Add("X-Request-Id", "2") }, 0, false},
		"twice":           {func(r *http.Request) { r.Header.Add("Signature", sign("a secret")) }, 0, false},
		"none":            {func(r *http.Request) { r.Header.Del("Signature") }, 0, false},
	} {
		r := &http.Request{Method: "GET", Host: "A:80", RequestURI: "/x?y", Header: http.Header{}}
		r.Header.Set("X-Request-Id", "1")
		r.Header.Set("Signature-Input", input)
		r.Header.Set("Signature", sign("a secret"))
		tc.change(r)
		if err := verify(r, "k", []byte("a secret"), now.Add(tc.at)); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
