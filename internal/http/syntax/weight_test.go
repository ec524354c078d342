package syntax

import "testing"

func TestWeightIsAQvalueRFC9110Section12_4_2(t *testing.T) {
	for params, want := range map[string]int{
		"": 1000, " ;a=b": 1000, "level=1;q=0.5": 500, " q=0.25 ": 250, "Q=1.000": 1000, "q=0": 0, "q=0.": 0, "q=0.001;x": 1, "q=1.": 1000,
		"q=": -1, "q=1.001": -1, "q=2": -1, "q=0.1234": -1, "q=.5": -1, "q=x": -1, "q=0,5": -1, "q=0.5x": -1, "q=-1": -1, "q=x;q=1": -1,
	} {
		n, ok := Weight([]byte(params))
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q is %d, want %d", params, n, want)
		}
	}
}
