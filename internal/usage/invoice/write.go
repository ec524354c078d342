package invoice

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/relais-edge/relais/internal/usage/price"
)

// Formats that Write knows.
const (
	CSV     = "csv"     // FOCUS columns in their order; nulls are empty
	JSON    = "json"    // the invoice, decimals as texts
	Parquet = "parquet" // decimals of nine places, times in UTC
)

// Write writes an invoice in a format.
func (v *Invoice) Write(w io.Writer, format string) error {
	switch format {
	case CSV:
		return v.writeCSV(w)
	case JSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case Parquet:
		return v.writeParquet(w)
	}
	return fmt.Errorf("%w: the format %q; it is csv, json or parquet", ErrInvalid, format)
}

func (v *Invoice) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	t := reflect.TypeFor[Row]()
	line := make([]string, t.NumField())
	for i := range line {
		line[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	_ = out.Write(line) // Error tells
	for i := range v.Rows {
		row := reflect.ValueOf(&v.Rows[i]).Elem()
		for j := range line {
			line[j] = cell(row.Field(j).Interface())
		}
		_ = out.Write(line)
	}
	out.Flush()
	return out.Error()
}

// cell writes a value as FOCUS has it (StringHandling, NumericFormat, DateTimeFormat).
func cell(v any) string {
	switch v := v.(type) {
	case string:
		return guard(v)
	case *string:
		if v != nil {
			return guard(*v)
		}
	case price.Amount:
		return v.String()
	case *price.Amount:
		if v != nil {
			return v.String()
		}
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	}
	return ""
}

// guard keeps titles that tenants choose from being formulas in a spreadsheet.
func guard(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func (v *Invoice) writeParquet(w io.Writer) error {
	out := parquet.NewGenericWriter[Row](w, parquet.Compression(&parquet.Zstd), parquet.KeyValueMetadata("focus.version", "1.2"),
		parquet.KeyValueMetadata("relais.invoice", v.ID))
	if _, err := out.Write(v.Rows); err != nil {
		return fmt.Errorf("invoice: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("invoice: %w", err)
	}
	return nil
}
