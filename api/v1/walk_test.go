package v1

import (
	"slices"
	"strings"
	"testing"
)

// TestFieldsThatSoundSecretAreMarked asks of each new field with such a name whether it is a secret.
func TestFieldsThatSoundSecretAreMarked(t *testing.T) {
	open := []string{ // they name something, and hold nothing
		"Certificate.spec.files.key", "OriginPool.spec.connection.signature.keyId", "Certificate.spec.acme.externalAccount.keyId", "Certificate.spec.acme.keyType",
		"CachePolicy.spec.key", "CachePolicy.spec.statusKey", "JwtPolicy.spec.tokenBytes", "RateLimit.spec.key", "RateLimit.spec.keys", "BotPolicy.spec.verified.keys",
	}
	var secrets []string
	var walk func(at string, s *Shape)
	walk = func(at string, s *Shape) {
		if s.Elem != nil {
			s = s.Elem
		}
		for i := range s.Fields {
			f := &s.Fields[i]
			path := at + "." + f.Name
			walk(path, f.Shape)
			if f.Secret {
				secrets = append(secrets, path)
			}
			name := strings.ToLower(f.Name)
			sounds := strings.Contains(name, "secret") || strings.Contains(name, "password") || strings.HasPrefix(name, "key") || strings.HasSuffix(name, "key") || strings.HasPrefix(name, "token") || name == "hmac" || strings.Contains(name, "private")
			if sounds && !f.Secret && !slices.Contains(open, path) && !strings.HasSuffix(path, ".cookies") {
				t.Errorf("%s sounds like a secret: mark it, or list it as open", path)
			}
		}
	}
	for _, k := range Kinds() {
		walk(string(k), ShapeOf(k))
	}
	if len(secrets) < 10 {
		t.Errorf("only %d secrets: %q", len(secrets), secrets)
	}
}

func TestSecretsAreFoundInListsAndBelowPointers(t *testing.T) {
	d := &VisitorPolicy{Spec: VisitorPolicySpec{Secret: "a", PreviousSecrets: []string{"b", "c"}, Callbacks: []Callback{{Signature: &CallbackSignature{Secrets: []string{"d"}}}}}}
	var got []string
	Secrets(d, func(path, text string) string {
		got = append(got, path+"="+text)
		return text + text
	})
	want := []string{"spec.secret=a", "spec.previousSecrets[0]=b", "spec.previousSecrets[1]=c", "spec.callbacks[0].signature.secrets[0]=d"}
	if !slices.Equal(got, want) || d.Spec.Secret != "aa" || d.Spec.PreviousSecrets[1] != "cc" {
		t.Errorf("%q, %+v", got, d.Spec)
	}
}
