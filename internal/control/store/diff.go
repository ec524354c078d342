package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// FieldChange is one field that differs between two bodies.
type FieldChange struct {
	Path   string          // JSON pointer (RFC 6901)
	Before json.RawMessage // nil: was not there
	After  json.RawMessage // nil: is not there
}

// DiffFields lists the fields in which two bodies differ, in the order of their paths. Members of objects are compared by
// name and elements of lists by place; nil is a body that does not exist. Numbers are compared as they are written.
func DiffFields(before, after []byte) ([]FieldChange, error) {
	a, err := decode(before)
	if err != nil {
		return nil, fmt.Errorf("%w: the former body: %w", ErrInvalid, err)
	}
	b, err := decode(after)
	if err != nil {
		return nil, fmt.Errorf("%w: the new body: %w", ErrInvalid, err)
	}
	var list []FieldChange
	diffValue("", a, b, &list)
	return list, nil
}

// absent is what is not there, in place of a value.
type absent struct{}

func decode(body []byte) (v any, err error) {
	if body == nil {
		return absent{}, nil
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	return v, d.Decode(&v)
}

func diffValue(path string, a, b any, list *[]FieldChange) {
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if aok && bok {
		names := maps.Clone(am)
		maps.Copy(names, bm)
		for _, n := range slices.Sorted(maps.Keys(names)) {
			diffValue(path+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(n), member(am, n), member(bm, n), list)
		}
		return
	}
	al, aok := a.([]any)
	bl, bok := b.([]any)
	if aok && bok {
		for i := range max(len(al), len(bl)) {
			diffValue(path+"/"+strconv.Itoa(i), element(al, i), element(bl, i), list)
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		*list = append(*list, FieldChange{path, encode(a), encode(b)})
	}
}

func member(m map[string]any, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return absent{}
}

func element(l []any, i int) any {
	if i < len(l) {
		return l[i]
	}
	return absent{}
}

func encode(v any) json.RawMessage {
	if v == any(absent{}) {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil // it was decoded from JSON
	}
	return b
}
