package main

import (
	"io"
	"testing"
)

func TestMetricsAreReadAndJudged(t *testing.T) {
	const out = "goos: linux\nBenchmarkPurgeTag-2 \t 1\t 123 ns/op\t 1.02 million/one\t 900 ns/purge\n" +
		"BenchmarkPurgesKept/clients=1-2 10 5 ns/op 700 purges/s\nBenchmarkPurgesKept/clients=64-2 10 5 ns/op 9000 purges/s\nPASS\n"
	metrics := map[string]float64{}
	read(out, metrics)
	if err := judge(metrics, io.Discard); err != nil {
		t.Errorf("%v: %v", metrics, err)
	}
	for name, v := range map[string]float64{"BenchmarkPurgeTag million/one": 1.2, "BenchmarkPurgesKept/clients=64 purges/s": 4000} {
		was := metrics[name]
		metrics[name] = v
		if judge(metrics, io.Discard) == nil {
			t.Errorf("%s %v is ok", name, v)
		}
		metrics[name] = was
	}
	if judge(map[string]float64{}, io.Discard) == nil {
		t.Error("nothing measured is ok")
	}
}
