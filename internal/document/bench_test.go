package document

import (
	"bytes"
	"fmt"
	"testing"
)

func noEnv(string) (string, bool) { return "", false }

// manySites writes n Site documents as a machine would, with what they name.
func manySites(n int) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: relais/v1\nkind: CachePolicy\nmetadata: {name: images, organization: demo}\n---\n" +
		"apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: shop, organization: demo}\n" +
		"spec: {tiers: [{origins: [{address: \"10.0.1.10:8080\"}]}]}\n")
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: relais/v1
kind: Site
metadata:
  name: site-%05d
  organization: demo
spec:
  hostnames: [site-%05d.example.com, www.site-%05d.example.com]
  cache: images
  routes:
    - match: [{path: {prefix: /img/}}]
      pool: shop
    - pool: shop
`, i, i, i)
	}
	return b.Bytes()
}

func BenchmarkRead10kSites(b *testing.B) {
	text := manySites(10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, problems := Read([]File{{"sites.yaml", text}}, noEnv); len(problems) > 0 {
			b.Fatal(problems[0])
		}
	}
}

func BenchmarkReadAndCompile10kSites(b *testing.B) {
	text := manySites(10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		set, problems := Read([]File{{"sites.yaml", text}}, noEnv)
		if len(problems) > 0 {
			b.Fatal(problems[0])
		}
		if _, problems = set.Compile(); len(problems) > 0 {
			b.Fatal(problems[0])
		}
	}
}

func BenchmarkLibrary10kSites(b *testing.B) {
	text := string(manySites(10_000))
	parts := split(nil, 0, text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		for _, p := range parts {
			if _, f := readLibrary(text[p.start:p.end]); f != nil {
				b.Fatal(f)
			}
		}
	}
}

func BenchmarkFast10kSites(b *testing.B) {
	text := string(manySites(10_000))
	parts := split(nil, 0, text)
	b.SetBytes(int64(len(text)))
	var r fastReader
	for b.Loop() {
		for _, p := range parts {
			if !r.read(text[p.start:p.end]) {
				b.Fatalf("not read: %s", text[p.start:p.end])
			}
		}
	}
}
