package v1

import "strconv"

// imagePolicy holds what can be asked for to a set that is finite and of use.
func (c *checker) imagePolicy(s *ImagePolicySpec) {
	for _, l := range []struct {
		name string
		list []int
	}{{"widths", s.Widths}, {"heights", s.Heights}, {"qualities", s.Qualities}} {
		seen := map[int]bool{}
		for i, n := range l.list {
			if seen[n] {
				c.add(l.name+"["+strconv.Itoa(i)+"]", strconv.Itoa(n)+" is there twice", "remove one")
			}
			seen[n] = true
		}
	}
	c.distinct("formats", s.Formats)
	if s.PresetsOnly && len(s.Presets) == 0 {
		c.add("presetsOnly", "leaves nothing that can be asked for", "list presets, or remove it")
	}
	seen := map[string]int{}
	c.each("presets", len(s.Presets), func(i int) {
		p := &s.Presets[i]
		if j, twice := seen[p.Name]; twice {
			c.add("name", quote(p.Name)+" is the name of presets["+strconv.Itoa(j)+"] too", "give it another")
		}
		seen[p.Name] = i
		c.imageForm(&p.ImageForm)
	})
	c.within("default", func() { c.imageForm(&s.Default) })
}

func (c *checker) imageForm(f *ImageForm) {
	if (f.Fit == "cover" || f.Fit == "crop") && (f.Width == 0 || f.Height == 0) {
		c.add("fit", f.Fit+" needs a width and a height", "give both, or write fit: scale-down or contain")
	}
}
