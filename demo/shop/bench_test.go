package shop

import (
	"fmt"
	"testing"
)

func BenchmarkPaint(b *testing.B) {
	c := NewCatalogue()
	for _, size := range []int{160, 320, 640} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for i := range b.N {
				p := c.products[i*43%len(c.products)]
				if _, err := encode(p, c.Category(p.Category).hue, size, "jpg"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
