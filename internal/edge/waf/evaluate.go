package waf

import (
	"fmt"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"

	"github.com/corazawaf/coraza/v3/types"
)

// verdict is what the engine says of a request.
type verdict struct {
	deny bool
	// detail says why, or what matched without reaching the threshold; empty when nothing did.
	detail string
}

// evaluate runs the request phases. Body is what was read of the body; cut says that there is
// more of it. A panic of the engine is returned as an error; its transaction is not used again.
func (e *engine) evaluate(p *policy, x *stage.Exchange, body []byte, cut bool) (v verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = verdict{}, fmt.Errorf("the engine panicked: %v", r)
		}
	}()
	tx := e.waf.NewTransactionWithID(x.ID.String()).(transaction)
	v, err = e.phases(tx, p, x, body, cut)
	_ = tx.Close() // fails when a temporary file is gone already
	return v, err
}

func (e *engine) phases(tx transaction, p *policy, x *stage.Exchange, body []byte, cut bool) (v verdict, err error) {
	p.apply(tx, x)
	head(tx, x)
	it := tx.ProcessRequestHeaders()
	if it == nil {
		if it, err = examineBody(tx, body, cut); err != nil {
			return verdict{}, err
		}
	}
	v.deny = it != nil
	v.detail = e.explain(tx, p, it)
	return v, nil
}

func examineBody(tx transaction, body []byte, cut bool) (*types.Interruption, error) {
	if cut {
		// The rest is not ours to judge: an end in the middle is no malformed body.
		tx.RemoveRuleByID(ruleParse)
		tx.RemoveRuleByID(ruleMultipart)
		if s, ok := tx.Variables().InboundDataError().(interface{ Set(string) }); ok {
			s.Set("1")
		}
	}
	if len(body) > 0 {
		if it, _, err := tx.WriteRequestBody(body); it != nil || err != nil {
			return it, err
		}
	}
	return tx.ProcessRequestBody()
}

// head gives the transaction the request line and the fields, as the origin would see them.
func head(tx transaction, x *stage.Exchange) {
	in := x.In
	client, port := "0.0.0.0", 0
	if x.Client.IsValid() {
		client = x.Client.Unmap().WithZone("").String()
	}
	server, serverPort := "", 0
	if c := in.Conn; c != nil {
		port, serverPort = int(c.Peer.Port()), int(c.Local.Port())
		server = c.Local.Addr().String()
	}
	tx.ProcessConnection(client, port, server, serverPort)
	method := in.MethodName()
	uri := in.Path()
	if in.Method == message.CONNECT {
		uri = in.Authority()
	}
	target := string(uri)
	if in.HasQuery() {
		target += "?" + string(in.Query())
	}
	tx.ProcessURI(target, string(method), in.Proto.String())
	for i := range in.Len() {
		id, name, value := in.At(i)
		if id == message.Expect && message.EqualFold(value, "100-continue") {
			continue // the edge's own business
		}
		tx.AddRequestHeader(string(name), string(value))
	}
	if !in.Has(message.Host) && len(in.Authority()) > 0 {
		tx.AddRequestHeader("Host", string(in.Authority()))
	}
	if in.Body != nil && in.Proto <= message.HTTP11 && !in.Has(message.ContentLength) && !in.Has(message.TransferEncoding) {
		// The framing was read by the protocol; the rules ask for it.
		if in.ContentLength >= 0 {
			tx.AddRequestHeader("Content-Length", fmt.Sprint(in.ContentLength))
		} else {
			tx.AddRequestHeader("Transfer-Encoding", "chunked")
		}
	}
	tx.SetServerName(string(x.Host))
}
