package invoice

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/relais-edge/relais/internal/usage"
	"github.com/relais-edge/relais/internal/usage/price"
)

func amount(s string) price.Amount {
	a, err := price.Parse(s)
	if err != nil {
		panic(err)
	}
	return a
}

func day(d int) usage.Day { return usage.DayOf(time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC)) }

func input() Input {
	return Input{
		ID: "2026-0001", Issuer: Party{"op", "Operator GmbH"}, Account: Party{ID: "east"}, Month: Month{2026, time.November},
		Prices: price.List{
			Currency: "EUR", Base: amount("10"), Requests: amount("0.6"), Gigabyte: amount("0.05"), Order: amount("0.01"),
			Regions: map[string]price.Amount{"eu": amount("0.02")}, Included: price.Included{Requests: 1_500_000},
		},
		Regions: map[string]string{"fra1": "eu"}, Titles: map[string]string{"shop": "=HYPERLINK(1)"},
		Use: []Use{
			{"shop", "web", "nyc1", day(2), usage.Counts{Requests: 2_000_000, BytesOut: 3_000_000_000, Orders: 7}},
			{"shop", "web", "fra1", day(1), usage.Counts{Requests: 1_000_000, BytesOut: 500_100_000, Refused: 900, RefusedBytesOut: 1 << 40}},
			{"cafe", "service/mail", "fra1", day(-1), usage.Counts{BytesOut: 1_000_000_000}},
		},
	}
}

func TestAnInvoice(t *testing.T) {
	v, err := Make(input())
	if err != nil {
		t.Fatal(err)
	}
	// 10 + 3 x 0.6 - 1.5 x 0.6 + 3 x 0.05 + 0.5001 x 0.02 + 1 x 0.02 + 7 x 0.01
	if v.Exact != amount("11.150002") || v.Due != amount("11.15") {
		t.Errorf("%s, due %s", v.Exact, v.Due)
	}
	again := input()
	slices.Reverse(again.Use)
	if w, err := Make(again); err != nil || !reflect.DeepEqual(v, w) {
		t.Errorf("in another order it is another invoice: %v", err)
	}
	classes := map[string]int{}
	var sum price.Amount
	for _, r := range v.Rows {
		classes[r.ChargeCategory]++
		if r.ChargeClass != nil {
			classes[*r.ChargeClass]++
		}
		sum += r.BilledCost
		if *r.SkuID == "refused" && (r.BilledCost != 0 || *r.ConsumedQuantity != amount("900")) {
			t.Errorf("what was refused is billed: %+v", r)
		}
		if p := r.ContractedUnitPrice; p != nil { // as the standard has it, within a rounding
			q, err := r.PricingQuantity.Of(int64(*p), int64(price.One))
			if d := q - r.ContractedCost; err != nil || d > 1 || d < -1 {
				t.Errorf("%s x %s is %s, not %s", p, r.PricingQuantity, q, r.ContractedCost)
			}
		}
	}
	if sum != v.Exact || classes["Usage"] != 7 || classes["Purchase"] != 1 || classes["Credit"] != 1 || classes["Correction"] != 1 {
		t.Errorf("%s, %v", sum, classes)
	}
}

func TestWhatIsNoInvoice(t *testing.T) {
	for name, spoil := range map[string]func(*Input){
		"no number":     func(in *Input) { in.ID = "" },
		"no currency":   func(in *Input) { in.Prices.Currency = "" },
		"of the future": func(in *Input) { in.Use[0].Day = day(31) },
		"too large":     func(in *Input) { in.Use[0].BytesOut = 1 << 62; in.Prices.Gigabyte = amount("1000") },
	} {
		in := input()
		spoil(&in)
		if _, err := Make(in); !errors.Is(err, ErrInvalid) && !errors.Is(err, price.ErrInvalid) && !errors.Is(err, price.ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFormatsSayTheSame(t *testing.T) {
	v, err := Make(input())
	if err != nil {
		t.Fatal(err)
	}
	var asCSV, asJSON, asParquet bytes.Buffer
	if err := errors.Join(v.Write(&asCSV, CSV), v.Write(&asJSON, JSON), v.Write(&asParquet, Parquet)); err != nil {
		t.Fatal(err)
	}
	var back Invoice
	if err := json.Unmarshal(asJSON.Bytes(), &back); err != nil || !reflect.DeepEqual(&back, v) {
		t.Errorf("JSON: %v", err)
	}
	rows, err := parquet.Read[Row](bytes.NewReader(asParquet.Bytes()), int64(asParquet.Len()))
	if err != nil || len(rows) != len(v.Rows) {
		t.Fatalf("Parquet: %d rows, %v", len(rows), err)
	}
	lines, err := csv.NewReader(&asCSV).ReadAll()
	if err != nil || len(lines) != len(v.Rows)+1 {
		t.Fatalf("CSV: %d lines, %v", len(lines), err)
	}
	for i := range rows {
		a, b := reflect.ValueOf(rows[i]), reflect.ValueOf(v.Rows[i])
		for j := range a.NumField() {
			name := lines[0][j]
			if got, want := cell(a.Field(j).Interface()), cell(b.Field(j).Interface()); got != want || lines[i+1][j] != want {
				t.Errorf("row %d, %s: Parquet %q, CSV %q, want %q", i, name, got, lines[i+1][j], want)
			}
		}
	}
	if !slices.ContainsFunc(lines, func(l []string) bool { return slices.Contains(l, "'=HYPERLINK(1)") }) {
		t.Error("a title is a formula")
	}
	if err := v.Write(&asCSV, "xlsx"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	schema := parquet.SchemaOf(Row{})
	if c, ok := schema.Lookup("BilledCost"); !ok || c.Node.Type().String() != "DECIMAL(18,9)" {
		t.Error("BilledCost is no decimal in Parquet")
	}
}

func TestMargins(t *testing.T) {
	in := input()
	v, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	costs := map[string]Cost{"fra1": {amount("0.01"), amount("0.001")}, "nyc1": {amount("0.02"), amount("0.01")}, "idle": {amount("1"), amount("1")}}
	list, err := Margins(in.Month, costs, []*Invoice{v}, map[string][]Use{"east": in.Use[:2], "west": {{"deli", "web", "fra1", day(3), usage.Counts{BytesIn: 1_000_000_000}}}})
	if err != nil {
		t.Fatal(err)
	}
	at := map[[2]string]Margin{}
	var revenue, hours price.Amount
	for _, m := range list {
		at[[2]string{m.Pop, m.Organization}] = m
		if m.Organization == "" {
			revenue += m.Revenue
			hours += m.Hours
		}
		if m.Margin != m.Revenue-m.Traffic-m.Hours {
			t.Errorf("%+v", m)
		}
	}
	if revenue != v.Exact || hours != amount("741.6") { // 720 hours
		t.Errorf("revenue %s of %s, hours %s", revenue, v.Exact, hours)
	}
	fra, nyc := at[[2]string{"fra1", "west"}], at[[2]string{"nyc1", "east"}]
	if fra.Revenue != 0 || fra.Traffic != amount("0.001") || fra.Margin >= 0 || nyc.Traffic != amount("0.03") || nyc.Hours != amount("14.4") {
		t.Errorf("%+v\n%+v", fra, nyc)
	}
	if east := at[[2]string{"fra1", "east"}]; east.Hours+fra.Hours != amount("7.2") || east.Hours < fra.Hours*1000 {
		t.Errorf("an attack is where its traffic was: %+v", east)
	}
	if idle := at[[2]string{"idle", nobody}]; idle.Hours != amount("720") {
		t.Errorf("%+v", idle)
	}
}
