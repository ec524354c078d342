package cache

import (
	"bytes"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
)

// deviceField tells the origin the class of the visitor's device. What a visitor sends in it is not heard.
const deviceField = "Relais-Device"

// normal is what the policy makes of request fields before anything is looked up: what the key holds, what a
// Vary selects by and what the origin is sent are then the same.
type normal struct {
	languages [][]byte
	device    bool
}

func newNormal(k *v1.CacheKey) normal {
	n := normal{device: k.Device}
	for _, l := range k.Languages {
		n.languages = append(n.languages, []byte(l))
	}
	return n
}

// apply writes the normal fields into a request. Own says that the edge made it, so that it knows the device.
func (n *normal) apply(f *message.Fields, own bool) {
	if len(n.languages) > 0 {
		want := n.languages[semantics.Language(f, n.languages)]
		if !bytes.Equal(f.Get(message.AcceptLanguage), want) || f.Count(message.AcceptLanguage) > 1 {
			f.Set(message.AcceptLanguage, want)
		}
	}
	if n.device && !(own && semantics.IsDevice(f.Lookup(deviceField))) {
		f.SetLine(deviceField, semantics.Device(f))
	}
}

// deviceAlias is the field that stands for User-Agent in a Vary; empty where none does.
func (n *normal) deviceAlias() string {
	if n.device {
		return deviceField
	}
	return ""
}
