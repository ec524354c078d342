// Package observe is how our own process is watched: metrics in Prometheus' form.
//
// A metric is found once, when a site or a listener is built, and kept; on the request path
// it costs an atomic addition. Label values are bounded: beyond a family's limit the series
// "other" takes the rest, and relais_metrics_overflow_total counts it.
package observe

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Counter only grows.
type Counter interface {
	Inc()
	Add(float64)
}

// Gauge goes up and down.
type Gauge interface {
	Set(float64)
	Add(float64)
}

// Histogram sorts observations into buckets.
type Histogram interface{ Observe(float64) }

// Registry holds the metrics of one process.
type Registry struct {
	reg      *prometheus.Registry
	overflow *prometheus.CounterVec
	mu       sync.Mutex
	families map[string]any
}

// New returns a registry with the metrics of the Go run time and of the process.
func New() *Registry {
	r := &Registry{reg: prometheus.NewRegistry(), families: map[string]any{}}
	r.overflow = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "relais_metrics_overflow_total",
		Help: "Series that were folded into \"other\" because their family was full.",
	}, []string{"family"})
	r.reg.MustRegister(r.overflow, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler serves the metrics.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Family is a set of series that differ in their label values.
type Family[T any] struct {
	r      *Registry
	name   string
	labels int
	limit  int
	with   func([]string) T
	del    func([]string) bool
	mu     sync.Mutex
	series map[string]int // how often each was asked for
}

// With finds the series of these label values, one for each label.
func (f *Family[T]) With(values ...string) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := strings.Join(values, "\xff")
	if _, ok := f.series[k]; !ok && len(f.series) >= f.limit {
		f.r.overflow.WithLabelValues(f.name).Inc()
		return f.with(slices.Repeat([]string{"other"}, f.labels))
	}
	f.series[k]++
	return f.with(values)
}

// Forget gives back what one With of the same values took; the last one removes the series.
func (f *Family[T]) Forget(values ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := strings.Join(values, "\xff")
	n, ok := f.series[k]
	if !ok {
		return
	}
	if n > 1 {
		f.series[k] = n - 1
		return
	}
	delete(f.series, k)
	f.del(values)
}

// Counters returns the family of counters of that name, made at the first call. Limit bounds its series.
func (r *Registry) Counters(name, help string, limit int, labels ...string) *Family[Counter] {
	return family(r, name, limit, labels, func() (prometheus.Collector, func([]string) Counter, func([]string) bool) {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		return v, func(l []string) Counter { return v.WithLabelValues(l...) }, func(l []string) bool { return v.DeleteLabelValues(l...) }
	})
}

// Gauges returns the family of gauges of that name, made at the first call. Limit bounds its series.
func (r *Registry) Gauges(name, help string, limit int, labels ...string) *Family[Gauge] {
	return family(r, name, limit, labels, func() (prometheus.Collector, func([]string) Gauge, func([]string) bool) {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		return v, func(l []string) Gauge { return v.WithLabelValues(l...) }, func(l []string) bool { return v.DeleteLabelValues(l...) }
	})
}

// Histograms returns the family of histograms of that name, made at the first call. Limit
// bounds its series; buckets are upper bounds, ascending.
func (r *Registry) Histograms(name, help string, limit int, buckets []float64, labels ...string) *Family[Histogram] {
	return family(r, name, limit, labels, func() (prometheus.Collector, func([]string) Histogram, func([]string) bool) {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		return v, func(l []string) Histogram { return v.WithLabelValues(l...) }, func(l []string) bool { return v.DeleteLabelValues(l...) }
	})
}

// GaugeFunc registers a gauge that is read when the metrics are.
func (r *Registry) GaugeFunc(name, help string, read func() float64) {
	r.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

func family[T any](r *Registry, name string, limit int, labels []string,
	build func() (prometheus.Collector, func([]string) T, func([]string) bool),
) *Family[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.families[name]; ok {
		return f.(*Family[T])
	}
	c, with, del := build()
	r.reg.MustRegister(c)
	f := &Family[T]{r: r, name: name, labels: len(labels), limit: limit, with: with, del: del, series: map[string]int{}}
	r.families[name] = f
	return f
}
