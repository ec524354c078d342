package waf

import "strings"

// textless says whether a media type holds no text, so that no rule can say anything of it.
func textless(contentType []byte) bool {
	n := 0
	for n < len(contentType) && contentType[n] != ';' && contentType[n] != ' ' && contentType[n] != '\t' {
		n++
	}
	t := strings.ToLower(string(contentType[:n]))
	kind, sub, _ := strings.Cut(t, "/")
	switch kind {
	case "image":
		return sub != "svg+xml"
	case "video", "audio", "font":
		return true
	case "application":
		switch sub {
		case "octet-stream", "pdf", "zip", "gzip", "x-gzip", "x-tar", "x-7z-compressed", "zstd", "wasm",
			"x-protobuf", "protobuf", "vnd.google.protobuf":
			return true
		}
		return sub == "grpc" || strings.HasPrefix(sub, "grpc+") || strings.HasPrefix(sub, "grpc-web")
	}
	return false
}
