package cache

import "github.com/relais-edge/relais/internal/stage"

func errStatus(err error) int { return stage.AsError(err).Status }
