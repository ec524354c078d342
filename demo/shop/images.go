package shop

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// painters is how many pictures are painted at once, and maxWaiting how many requests may
// wait for a painting.
const (
	painters   = 2
	maxWaiting = 1024
)

// imageCache keeps ready images, the most recently used ones within a bound of bytes. Several
// requests for one missing image paint it once.
type imageCache struct {
	gate    chan struct{} // one token per picture being painted
	waiting atomic.Int64

	mu      sync.Mutex
	limit   int
	bytes   int
	made    int64
	evicted int64
	recent  *list.List // of *readyImage, the most recently used first
	ready   map[string]*list.Element
	making  map[string]*makingImage
}

type readyImage struct {
	name string
	body []byte
}

type makingImage struct {
	done chan struct{}
	body []byte
	err  error
}

func newImageCache(limit int) *imageCache {
	return &imageCache{
		gate: make(chan struct{}, painters), limit: limit, recent: list.New(),
		ready: map[string]*list.Element{}, making: map[string]*makingImage{},
	}
}

func (c *imageCache) stats() (size int, made, evicted int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.made, c.evicted
}

// get returns the image of that name, and has it made when it is not there. One who waits
// for another's painting stops when ctx ends. It returns errBusy when too many wait.
func (c *imageCache) get(ctx context.Context, name string, paint func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	if at, ok := c.ready[name]; ok {
		c.recent.MoveToFront(at)
		body := at.Value.(*readyImage).body
		c.mu.Unlock()
		return body, nil
	}
	if c.waiting.Load() >= maxWaiting {
		c.mu.Unlock()
		return nil, errBusy
	}
	c.waiting.Add(1)
	defer c.waiting.Add(-1)
	if m, ok := c.making[name]; ok {
		c.mu.Unlock()
		select {
		case <-m.done:
			return m.body, m.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m := &makingImage{done: make(chan struct{}), err: fmt.Errorf("shop: painting %s was broken off", name)}
	c.making[name] = m
	c.mu.Unlock()

	// Deferred, so that a panic in a painting does not leave the others waiting.
	defer c.finish(name, m)
	c.gate <- struct{}{}
	defer func() { <-c.gate }()
	m.body, m.err = paint()
	return m.body, m.err
}

func (c *imageCache) finish(name string, m *makingImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.making, name)
	close(m.done)
	if m.err != nil {
		return
	}
	c.made++
	c.ready[name] = c.recent.PushFront(&readyImage{name, m.body})
	c.bytes += len(m.body)
	for c.bytes > c.limit && c.recent.Len() > 0 {
		last := c.recent.Back()
		old := c.recent.Remove(last).(*readyImage)
		delete(c.ready, old.name)
		c.bytes -= len(old.body)
		c.evicted++
	}
}

// imageVersion is part of every image's entity tag: raise it when the pictures change.
const imageVersion = "1"

// imageFile reads "LMP-0100-320.jpg". ok is false when there is no such image.
func (s *Shop) imageFile(file string) (p *Product, size int, format string, ok bool) {
	name, format, found := strings.Cut(file, ".")
	at := strings.LastIndexByte(name, '-')
	if !found || at < 0 || (format != "jpg" && format != "png") {
		return nil, 0, "", false
	}
	switch name[at+1:] {
	case "160":
		size = 160
	case "320":
		size = 320
	case "640":
		size = 640
	default:
		return nil, 0, "", false
	}
	p = s.catalogue.Product(name[:at])
	return p, size, format, p != nil
}

// getImage serves a picture. Painting a new one is no part of the shop's capacity (a real
// shop has its pictures ready), so only what follows it takes a slot.
func (s *Shop) getImage(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	p, size, format, ok := s.imageFile(file)
	if !ok {
		s.notFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", cacheImage)
	// A picture follows from its name, so its tag does too: a 304 paints nothing.
	h.Set("Etag", `"`+file+`-v`+imageVersion+`"`)
	h.Set("Content-Type", map[string]string{"jpg": "image/jpeg", "png": "image/png"}[format])
	if notModified(r, h.Get("Etag")) {
		h.Set("Last-Modified", firstDay().Format(http.TimeFormat))
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body, err := s.images.get(r.Context(), file, func() ([]byte, error) {
		return encode(p, s.catalogue.Category(p.Category).hue, size, format)
	})
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody is there to read an answer
	}
	if errors.Is(err, errBusy) {
		s.refuse(w, r)
		return
	}
	if err != nil {
		s.cfg.Logger.Error("shop: an image could not be made", "file", file, "error", err)
		s.fail(w, r, http.StatusInternalServerError, "This picture is broken.")
		return
	}
	s.admit(false, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", firstDay(), bytes.NewReader(body))
	}).ServeHTTP(w, r)
}

// notModified decides by If-None-Match alone, with the weak comparison of RFC 9110 section
// 13.1.2. Everything else is left to http.ServeContent.
func notModified(r *http.Request, etag string) bool {
	for _, field := range r.Header.Values("If-None-Match") {
		for candidate := range strings.SplitSeq(field, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == etag {
				return true
			}
		}
	}
	return false
}

func encode(p *Product, hue float64, size int, format string) ([]byte, error) {
	img := picture(p, hue, size)
	var out bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&out, img)
	} else {
		err = jpeg.Encode(&out, img, &jpeg.Options{Quality: 84})
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", p.SKU, err)
	}
	return out.Bytes(), nil
}
