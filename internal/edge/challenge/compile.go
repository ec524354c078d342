package challenge

import (
	"fmt"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/edge/seal"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is how a site challenges. It does not change.
type part struct {
	effort   int
	wait     int64 // seconds
	lifetime int64 // seconds
	cookie   string
	names    []string
	header   string
	hash     uint64
	puzzles  *seal.Keys
	proofs   *seal.Keys
	use      budget.Rate
	metrics  [outCount]observe.Counter
}

// Compile implements stage.Compiler. A site without a challenge of its own challenges as the defaults say.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	spec := site.Spec.Challenge
	if spec == nil {
		if s.secrets == nil {
			return nil, nil
		}
		spec = &v1.Challenge{Effort: 16, Wait: v1.Duration(10 * time.Second), Lifetime: v1.Duration(30 * time.Minute), Cookie: "rc", Header: "Relais-Pass"}
	}
	var secrets [][]byte
	switch {
	case spec.Secret != "":
		for _, t := range append([]string{spec.Secret}, spec.PreviousSecrets...) {
			if len(t) < seal.MinSecret {
				return nil, fmt.Errorf("challenge: site %s: secret has %d bytes; give at least %d", site.Key, len(t), seal.MinSecret)
			}
			secrets = append(secrets, []byte(t))
		}
	case s.secrets == nil:
		return nil, fmt.Errorf("challenge: site %s: secret is missing, and this edge has no directory to keep one in; give at least 16 bytes", site.Key)
	default:
		var err error
		if secrets, err = s.secrets.Secrets("challenge"); err != nil {
			return nil, err
		}
	}
	p := &part{
		effort: spec.Effort, wait: int64(spec.Wait.Std() / time.Second), lifetime: int64(spec.Lifetime.Std() / time.Second),
		cookie: spec.Cookie, names: []string{spec.Cookie}, header: spec.Header, hash: budget.Fold([]byte(site.Key)),
		puzzles: seal.New("relais challenge 1\x00"+string(site.Key), secrets...),
		proofs:  seal.New("relais proof 1\x00"+string(site.Key), secrets...),
		use:     budget.Per(30, time.Second).Burst(300),
	}
	for i, o := range outcomes {
		p.metrics[i] = s.counter.With(string(site.Key), o)
	}
	return p, nil
}
