package image

import (
	"context"
	"math"
)

// axis says which part of a side is brought to how many samples.
type axis struct {
	from, length float64
	n            int
}

// taps are the weights by which samples from first on make one; they add up to one, which is 1<<tapBits.
type taps struct {
	first   int
	weights []int32
}

const (
	tapBits = 14
	// rowBits are those behind the point of what the first pass makes.
	rowBits = 6
)

// catmullRom is the kernel (Keys 1981, a = -1/2): sharp, with little ringing.
func catmullRom(x float64) float64 {
	switch x = math.Abs(x); {
	case x < 1:
		return (1.5*x-2.5)*x*x + 1
	case x < 2:
		return ((-0.5*x+2.5)*x-4)*x + 2
	}
	return 0
}

// tapsOf makes the weights for a side of size samples. Where it shrinks the kernel is as much wider, so that
// every sample counts.
func tapsOf(a axis, size int) []taps {
	scale := a.length / float64(a.n)
	wide := max(scale, 1)
	out := make([]taps, a.n)
	var values []float64
	for i := range out {
		centre := a.from + (float64(i)+0.5)*scale - 0.5
		first, last := max(0, int(math.Ceil(centre-2*wide))), min(size-1, int(math.Floor(centre+2*wide)))
		if first > last {
			first = min(max(int(math.Round(centre)), 0), size-1)
			last = first
		}
		values = values[:0]
		sum := 0.0
		for j := first; j <= last; j++ {
			v := catmullRom((float64(j) - centre) / wide)
			values, sum = append(values, v), sum+v
		}
		t := taps{first, make([]int32, len(values))}
		rest, most := int32(1<<tapBits), 0
		for j, v := range values {
			if sum == 0 {
				v, sum = 1, 1
			}
			t.weights[j] = int32(math.Round(v / sum * (1 << tapBits)))
			rest -= t.weights[j]
			if t.weights[j] > t.weights[most] {
				most = j
			}
		}
		t.weights[most] += rest // what rounding lost
		out[i] = t
	}
	return out
}

// scale brings a part of a plane to another size: first all rows, then all columns.
func scale(ctx context.Context, s *plane, horizontal, vertical axis) ([]uint8, error) {
	n := s.channels
	across, down := tapsOf(horizontal, s.width), tapsOf(vertical, s.height)
	top := down[0].first
	bottom := top
	for i := range down {
		top, bottom = min(top, down[i].first), max(bottom, down[i].first+len(down[i].weights))
	}
	width := horizontal.n * n
	rows := make([]int16, (bottom-top)*width)
	buf := make([]uint8, s.width*n)
	for y := top; y < bottom; y++ {
		if y&63 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		to := rows[(y-top)*width:][:width]
		if n == 1 {
			acrossOne(to, s.row(y, buf), across)
		} else {
			acrossFour(to, s.row(y, buf), across)
		}
	}
	out := make([]uint8, vertical.n*width)
	sums := make([]int32, width)
	for y := range down {
		if y&63 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		clear(sums)
		t := &down[y]
		for k, w := range t.weights {
			row := rows[(t.first-top+k)*width:][:width]
			for i, v := range row {
				sums[i] += w * int32(v)
			}
		}
		to := out[y*width:][:width]
		for i, v := range sums {
			to[i] = uint8(min(max((v+1<<(tapBits+rowBits-1))>>(tapBits+rowBits), 0), 255))
		}
		if n == 4 {
			holdToAlpha(to)
		}
	}
	return out, nil
}

func acrossOne(to []int16, row []uint8, across []taps) {
	for x := range across {
		t := &across[x]
		var sum int32
		from := row[t.first:][:len(t.weights)]
		for k, w := range t.weights {
			sum += w * int32(from[k])
		}
		to[x] = int16((sum + 1<<(tapBits-rowBits-1)) >> (tapBits - rowBits))
	}
}

func acrossFour(to []int16, row []uint8, across []taps) {
	for x := range across {
		t := &across[x]
		var r, g, b, a int32
		from := row[4*t.first:][:4*len(t.weights)]
		for k, w := range t.weights {
			p := from[4*k:][:4]
			r, g, b, a = r+w*int32(p[0]), g+w*int32(p[1]), b+w*int32(p[2]), a+w*int32(p[3])
		}
		const half, shift = 1 << (tapBits - rowBits - 1), tapBits - rowBits
		q := to[4*x:][:4]
		q[0], q[1], q[2], q[3] = int16((r+half)>>shift), int16((g+half)>>shift), int16((b+half)>>shift), int16((a+half)>>shift)
	}
}

// holdToAlpha keeps colours that ring beyond their alpha from it.
func holdToAlpha(row []uint8) {
	for i := 0; i+3 < len(row); i += 4 {
		a := row[i+3]
		row[i], row[i+1], row[i+2] = min(row[i], a), min(row[i+1], a), min(row[i+2], a)
	}
}
