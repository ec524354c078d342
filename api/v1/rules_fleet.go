package v1

import (
	"strconv"
	"time"
	_ "time/tzdata" // so that a document means the same on machines that have no time zones
)

// defaultRings are one place, then a hundredth, then a tenth of all.
func defaultRings(s *RolloutPolicySpec) {
	if len(s.Rings) == 0 {
		s.Rings = []RolloutRing{{Pops: 1}, {Share: new(Percent(1))}, {Share: new(Percent(10))}}
	}
	for i := range s.Rings {
		r := &s.Rings[i]
		if r.Name == "" {
			r.Name = "ring-" + strconv.Itoa(i+1)
		}
		if r.Wait == nil {
			r.Wait = new(Duration(5 * time.Minute))
		}
	}
}

func (c *checker) pop(s *PopSpec) {
	c.distinct("addresses", s.Addresses)
}

func (c *checker) placement(s *PlacementSpec) {
	c.distinct("organizations", s.Organizations)
	for k, v := range s.PopLabels {
		if except, both := s.ExceptPopLabels[k]; both && except == v {
			c.add("exceptPopLabels", "takes away what popLabels asks for: "+quote(k+": "+v), "remove it from one of the two")
		}
	}
}

func (c *checker) killSwitch(s *KillSwitchSpec) {
	c.distinct("features", s.Features)
	if s.Everywhere && len(s.Sites) > 0 {
		c.add("sites", "has no meaning beside everywhere", "remove one of the two")
	}
}

func (c *checker) rolloutPolicy(s *RolloutPolicySpec) {
	c.distinct("organizations", s.Organizations)
	names := map[string]bool{}
	pops, share := 0, Percent(0)
	c.each("rings", len(s.Rings), func(i int) {
		r := &s.Rings[i]
		given := 0
		for _, is := range []bool{r.Pops > 0, r.Share != nil, len(r.Labels) > 0} {
			if is {
				given++
			}
		}
		switch {
		case given != 1:
			c.add("", "gives "+strconv.Itoa(given)+" of pops, share and labels", "give exactly one of them")
		case r.Pops > 0 && r.Pops <= pops:
			c.add("pops", strconv.Itoa(r.Pops)+" is not more than an earlier ring has", "let rings grow")
		case r.Share != nil && *r.Share <= share:
			c.add("share", r.Share.String()+" is not more than an earlier ring has, or than nothing", "let rings grow")
		}
		pops, share = max(pops, r.Pops), max(share, Value(r.Share))
		if names[r.Name] {
			c.add("name", quote(r.Name)+" is the name of an earlier ring", "give it another")
		}
		names[r.Name] = true
	})
	c.each("freeze", len(s.Freeze), func(i int) { c.freeze(&s.Freeze[i]) })
}

func (c *checker) freeze(w *FreezeWindow) {
	once := w.Start != nil || w.End != nil
	again := w.From != "" || w.To != "" || len(w.Weekdays) > 0
	switch {
	case once == again:
		c.add("", "is neither once nor again and again, or both", "give start and end, or from and to")
		return
	case once && (w.Start == nil || w.End == nil || !w.Start.Before(w.End.Time)):
		c.add("end", "does not come after start", "give both start and end, the end later")
	case again && (w.From == "" || w.To == ""):
		c.add("from", "and to are not both given", "write both, such as from: \"17:00\" and to: \"08:00\"")
	}
	for _, f := range [][2]string{{"from", w.From}, {"to", w.To}} {
		if _, err := time.Parse("15:04", f[1]); err != nil && f[1] != "" {
			c.add(f[0], quote(f[1])+" is no time of day", "write hours and minutes, such as \"17:00\"")
		}
	}
	if _, err := time.LoadLocation(w.TimeZone); err != nil || w.TimeZone == "Local" {
		c.add("timeZone", quote(w.TimeZone)+" is not a time zone that is known", "write one of the IANA database, such as Europe/Berlin or UTC")
	}
	c.distinct("weekdays", w.Weekdays)
}
