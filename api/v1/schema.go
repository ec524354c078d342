package v1

import (
	"embed"
	"strings"
)

//go:generate go test -run ^TestSchemaFilesAreCurrent$ -update .

//go:embed schema/*.json schema/crd/*.json
var schemaFiles embed.FS

// Schema gives the JSON Schema (draft 2020-12) of one document of any kind, for editors and other
// readers of files. It refuses unknown fields, as the reader of files does.
func Schema() []byte { return schemaFile("document") }

// KindSchema gives the JSON Schema of a kind in Kubernetes' structural form, which is also that of
// OpenAPI 3: each object has a type and its properties, and nothing refers to another place. It is
// nil when the kind is unknown.
func KindSchema(k Kind) []byte { return schemaFile(strings.ToLower(string(k))) }

// CRDSchema gives the openAPIV3Schema of a kind for a CustomResourceDefinition: KindSchema with the
// metadata, apiVersion and kind left to Kubernetes. It is nil when the kind is unknown.
func CRDSchema(k Kind) []byte { return schemaFile("crd/" + strings.ToLower(string(k))) }

func schemaFile(name string) []byte {
	b, err := schemaFiles.ReadFile("schema/" + name + ".json")
	if err != nil {
		return nil
	}
	return b
}
