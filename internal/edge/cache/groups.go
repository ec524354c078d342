package cache

import (
	"slices"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// enrol notes the tags and cache groups of an object, and takes the tags off its fields where the policy
// does not show them. A 304 that names no tags leaves those of prior, which may be nil.
//
// A group can be purged, for all origins of the site, by its name and, where it could be one, as a tag. It is
// invalidated by unsafe requests for its own origin only (RFC 9875 section 2.1).
func (s *Stage) enrol(o *object, r *rule, x *stage.Exchange, prior *object) {
	f := &o.fields
	var t purge.Tags
	tagged := f.Has(message.CacheTag) || f.Has(message.SurrogateKey)
	switch {
	case tagged:
		for i := f.Next(message.CacheTag, 0); i >= 0; i = f.Next(message.CacheTag, i+1) {
			_, _, line := f.At(i)
			t.AddCommas(line)
		}
		for i := f.Next(message.SurrogateKey, 0); i >= 0; i = f.Next(message.SurrogateKey, i+1) {
			_, _, line := f.At(i)
			t.AddSpaces(line)
		}
	case prior != nil:
		for name := range purge.Names(prior.names) {
			t.Add(name)
		}
	}
	if f.Has(message.CacheGroups) {
		origin := appendOrigin(nil, x)[len(x.Site.Key)+1:]
		if !semantics.Groups(f, message.CacheGroups, func(name []byte) {
			o.tags = append(o.tags, r.mark.GroupHash(origin, name), r.mark.GroupHash(nil, name))
			if purge.GoodTag(name) {
				t.Add(name)
			}
		}) {
			// What cannot be read says nothing (RFC 9651 section 4.2), but it was meant: validate each time.
			o.NoCache = true
		}
	}
	if !t.Whole() {
		o.NoCache = true // a purge could not be obeyed
		s.m.untagged.Inc()
	}
	for name := range purge.Names(t.Text()) {
		o.tags = append(o.tags, r.mark.TagHash(name))
	}
	o.tags = slices.Clip(o.tags)
	o.names = slices.Clip(t.Text())
	r.hideTags(f)
}

// hideTags takes off an answer what only caches that can be purged have a use for, unless the policy
// shows it. Cache-Groups is for every cache, and stays.
func (r *rule) hideTags(f *message.Fields) {
	if !r.showTags {
		f.Del(message.CacheTag)
		f.Del(message.SurrogateKey)
	}
}

// invalidateGroups does what Cache-Group-Invalidation of the answer to an unsafe request says (RFC
// 9875 section 3).
func (s *Stage) invalidateGroups(x *stage.Exchange, resp *message.Response) {
	if !resp.Has(message.CacheGroupInvalidation) {
		return
	}
	origin := string(appendOrigin(nil, x)[len(x.Site.Key)+1:])
	var list []purge.Entry
	if !semantics.Groups(&resp.Fields, message.CacheGroupInvalidation, func(name []byte) {
		list = append(list, purge.Entry{Kind: purge.Group, Site: string(x.Site.Key), Host: origin, Value: string(name)})
	}) {
		return
	}
	for i := range list {
		s.m.groups.Inc()
		// It holds at once; the visitor does not wait for the disk.
		_, _ = s.apply(&list[i])
	}
}
