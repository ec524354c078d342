// Package v1 is the vocabulary of Relais: the documents that a tenant or an operator writes.
//
// A document is the same in a file, in the API, in a custom resource and in an export.
// The `schema` tag of a field is the one source of its default, its bounds and its
// description in the JSON Schema; see Schema, Default and Validate:
//
//	required            the field must be given
//	default=V           V is taken when the field is absent
//	enum=a|b|c          one of these words
//	min=N max=N         bounds of a number, of a Duration (Go syntax) or of a Size
//	minItems=N maxItems=N  bounds of a list or of a map
//	maxLength=N         bytes of a string
//	format=F            host-port, listen (host-port whose host may be empty and whose port may be 0),
//	                    hostname, hostname-pattern (a hostname, *.name or *), cidr, address, path, token,
//	                    field-name, regexp, name
//	ref=Kind            the name of a document of that kind in the same organization
//	secret              a control plane keeps it closed and never gives it back
//	local               names something of the machine or the network that serves: a control plane takes it from its
//	                    operator alone
//
// Of a list, maxItems and minItems bound the list and all the rest bounds its elements. A field whose
// zero value differs from its default and is allowed is a pointer, so that a written zero survives;
// after Default it is never nil.
package v1
