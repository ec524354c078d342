package apiguard

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Draft writes an OpenAPI document of the endpoints that were answered well: paths, methods and the parameters of
// paths, to be completed by hand.
func Draft(reports []Report) []byte {
	type parameter struct {
		Name     string            `json:"name"`
		In       string            `json:"in"`
		Required bool              `json:"required"`
		Schema   map[string]string `json:"schema"`
	}
	type answer struct {
		Description string `json:"description"`
	}
	type operation struct {
		Parameters []parameter       `json:"parameters,omitempty"`
		Responses  map[string]answer `json:"responses"`
	}
	type info struct {
		Title   string `json:"title"`
		Version string `json:"version"`
	}
	doc := struct {
		OpenAPI string                          `json:"openapi"`
		Info    info                            `json:"info"`
		Paths   map[string]map[string]operation `json:"paths"`
	}{"3.1.0", info{"Draft, made of what was asked for", "0"}, map[string]map[string]operation{}}
	for _, r := range reports {
		doc.Info.Title = "Draft of " + r.Site + ", made of what was asked for"
		for _, e := range r.Endpoints {
			method := strings.ToLower(e.Method)
			if e.Status[2]+e.Status[3] == 0 || !isMethod(method) || strings.Contains(e.Template, "{more}") {
				continue
			}
			template, names := named(e.Template)
			op := operation{Responses: map[string]answer{}}
			for _, n := range names {
				op.Parameters = append(op.Parameters, parameter{n, "path", true, map[string]string{"type": "string"}})
			}
			for class := 2; class <= 5; class++ {
				if e.Status[class] > 0 {
					op.Responses[strconv.Itoa(class)+"XX"] = answer{strconv.FormatUint(e.Status[class], 10) + " answers"}
				}
			}
			if doc.Paths[template] == nil {
				doc.Paths[template] = map[string]operation{}
			}
			doc.Paths[template][method] = op
		}
	}
	b, _ := json.MarshalIndent(doc, "", "  ") // of plain data
	return append(b, '\n')
}

func isMethod(m string) bool {
	switch m {
	case "get", "put", "post", "delete", "options", "head", "patch", "trace":
		return true
	}
	return false
}

// named gives each parameter of a template a name of its own.
func named(template string) (string, []string) {
	var names []string
	segments := strings.Split(template, "/")
	for i, s := range segments {
		open, end := strings.IndexByte(s, '{'), strings.LastIndexByte(s, '}')
		if open < 0 || end < open {
			continue
		}
		name := s[open+1 : end]
		if s == "{id}" {
			name = "id"
			if i > 0 && isWord(segments[i-1]) {
				name = strings.TrimSuffix(segments[i-1], "s") + "Id"
			}
			for n := 2; contains(names, name); n++ {
				name = strings.TrimRight(name, "0123456789") + strconv.Itoa(n)
			}
			segments[i] = "{" + name + "}"
		}
		names = append(names, name)
	}
	return strings.Join(segments, "/"), names
}

func isWord(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return s != ""
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
