package e2e

// The part between the marks is the program of docs/origin-lockdown.md; a test holds both together.

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
