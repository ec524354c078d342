package screen

import "github.com/relais-edge/relais/internal/edge/waf/traffic"

func shopRequest(kind string, n int) Request {
	c := traffic.Request(kind, n)
	return requestOf(&c)
}

func shopCorpus(n int) (out []crsRequest) {
	for _, c := range traffic.Shop(n) {
		out = append(out, crsRequest{c.Name, requestOf(&c)})
	}
	return out
}
