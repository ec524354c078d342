package brand

import (
	"fmt"
	"math"
	"strconv"
)

// textContrast is what level AA of the Web Content Accessibility Guidelines 2.2 asks for text (1.4.3).
const textContrast = 4.5

// Colors are those of a page, as #rrggbb.
type Colors struct {
	Text       string `json:"text"`
	Background string `json:"background"`
	Accent     string `json:"accent"`     // of buttons and links
	AccentText string `json:"accentText"` // on Accent
}

// check says what is wrong with colours; empty: nothing. Links are text in the colour Accent, so it needs as much contrast
// as text.
func (c *Colors) check() string {
	for _, pair := range []struct {
		on, under, names string
	}{
		{c.Text, c.Background, "text on background"},
		{c.AccentText, c.Accent, "accentText on accent"},
		{c.Accent, c.Background, "accent on background"},
	} {
		a, ok1 := luminance(pair.on)
		b, ok2 := luminance(pair.under)
		if !ok1 || !ok2 {
			return fmt.Sprintf("has %s %q and %q; write colours as #1d4f91", pair.names, clip(pair.on), clip(pair.under))
		}
		if ratio := contrast(a, b); ratio < textContrast {
			return fmt.Sprintf("has a contrast of %.2f of %s; at least %.1f can be read by everybody", ratio, pair.names, textContrast)
		}
	}
	return ""
}

func clip(s string) string { return s[:min(len(s), 32)] }

// luminance is the relative luminance of a colour in sRGB, 0 to 1 (WCAG 2.2, definitions).
func luminance(s string) (float64, bool) {
	if len(s) != 7 || s[0] != '#' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[1:], 16, 32)
	if err != nil {
		return 0, false
	}
	part := func(shift uint) float64 {
		v := float64(n>>shift&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0), true
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
