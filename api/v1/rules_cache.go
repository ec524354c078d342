package v1

import (
	"regexp"
	"strconv"
	"strings"
)

// minToken is the least length of a token of the PURGE method.
const minToken = 16

func (c *checker) cachePolicy(s *CachePolicySpec) {
	if s.MaxTTL > 0 && s.DefaultTTL > s.MaxTTL {
		c.add("defaultTTL", s.DefaultTTL.String()+" is more than maxTTL, "+s.MaxTTL.String(), "write less, or raise maxTTL")
	}
	c.distinct("targetedFields", s.TargetedFields)
	if p := s.Purge; p != nil {
		c.within("purge", func() {
			if len(p.Addresses) == 0 && len(p.Tokens) == 0 {
				c.add("", "would let everybody empty the cache", "give addresses, tokens or both; without purge nobody may use PURGE")
			}
			for i, t := range p.Tokens {
				if len(t) < minToken {
					c.add("tokens["+strconv.Itoa(i)+"]", "is too short to be a secret", "give at least "+strconv.Itoa(minToken)+" characters, such as ${PURGE_TOKEN} from the environment")
				}
			}
		})
	}
	if s.Feed != nil {
		c.within("feed", func() { c.cacheFeed(s.Feed) })
	}
	c.within("key", func() { c.cacheKey(&s.Key) })
	c.each("bypass", len(s.Bypass), func(i int) { c.cacheBypass(&s.Bypass[i]) })
}

// Sets are names for lists that the edge knows.
const (
	// MarketingParameters stands for parameters of advertisers and newsletters.
	MarketingParameters = "@marketing"
	// StaticSuffixes stands for the endings of files that are never pages.
	StaticSuffixes = "@static"
)

var language = regexp.MustCompile(`^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*$`)

func (c *checker) cacheKey(k *CacheKey) {
	chosen := k.Query == "listed" || k.Query == "except"
	if chosen && len(k.Parameters) == 0 {
		c.add("parameters", "is required with query: "+k.Query, "list the parameters")
	}
	if !chosen && len(k.Parameters) > 0 {
		c.add("parameters", "has no meaning with query: "+k.Query, "write query: listed or query: except, or remove it")
	}
	for i, p := range k.Parameters {
		at := "parameters[" + strconv.Itoa(i) + "]"
		if j := strings.IndexByte(p, '*'); j >= 0 && j != len(p)-1 {
			c.add(at, quote(p)+" has a * before its end", "write * only as the last character, such as utm_*")
		}
		c.set(at, p, MarketingParameters)
	}
	if k.Sort && k.Query == "none" {
		c.add("sort", "has no meaning with query: none", "remove it")
	}
	for i, l := range k.Languages {
		if !language.MatchString(l) {
			c.add("languages["+strconv.Itoa(i)+"]", quote(l)+" is not a language", "write a tag such as de, en-GB or zh-Hant (RFC 5646)")
		}
	}
	c.distinct("parameters", k.Parameters)
	c.distinct("headers", k.Headers)
	c.distinct("cookies", k.Cookies)
	c.distinct("languages", lowered(k.Languages))
}

func lowered(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// set reports what begins with @ and is not the one name that has a meaning there.
func (c *checker) set(at, s, known string) {
	if strings.HasPrefix(s, "@") && s != known {
		c.add(at, quote(s)+" is not a list that is known", "write "+known+", or names")
	}
}

func (c *checker) cacheBypass(b *CacheBypass) {
	if len(b.Cookies)+len(b.Parameters)+len(b.Headers)+len(b.Suffixes) == 0 {
		if len(b.ExceptSuffixes) == 0 {
			c.add("", "would match every request", "give cookies, parameters, headers or suffixes; to store nothing, remove cache from the route")
			return
		}
	}
	for _, l := range [...]struct {
		name string
		list []string
	}{{"cookies", b.Cookies}, {"parameters", b.Parameters}, {"headers", b.Headers}} {
		for i, s := range l.list {
			at := l.name + "[" + strconv.Itoa(i) + "]"
			name, _, exact := strings.Cut(s, "=")
			switch {
			case name == "" || name == "*":
				c.add(at, quote(s)+" has no name", "write name, name* or name=value")
			case strings.Contains(strings.TrimSuffix(name, "*"), "*"), exact && strings.HasSuffix(name, "*"):
				c.add(at, quote(s)+" has a * before its end", "write name, name* or name=value")
			case l.name != "parameters" && !isToken(strings.TrimSuffix(name, "*")):
				c.add(at, quote(name)+" is not a name", "write name, name* or name=value, such as session or X-Preview=1")
			}
		}
		c.distinct(l.name, l.list)
	}
	for _, l := range [...]struct {
		name string
		list []string
	}{{"suffixes", b.Suffixes}, {"exceptSuffixes", b.ExceptSuffixes}} {
		for i, s := range l.list {
			at := l.name + "[" + strconv.Itoa(i) + "]"
			c.set(at, s, StaticSuffixes)
			if strings.ContainsAny(s, "*?#") {
				c.add(at, quote(s)+" is no ending of a path", "write one such as .html; it needs no *")
			}
		}
		c.distinct(l.name, l.list)
	}
}

// isToken says whether s can be the name of a field or a cookie.
func isToken(s string) bool {
	what, _ := checkToken(s)
	return what == ""
}
