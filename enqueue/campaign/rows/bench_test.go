package rows_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
)

// What a campaign of a million rows costs before anything is sealed. On one core:
//
//	go test ./enqueue/campaign/rows -run '^$' -bench . -cpu 1
func BenchmarkRows(b *testing.B) {
	for _, c := range []struct {
		name string
		def  providers.Definition
		head string
		row  func(i int) string
	}{
		{"csv/unimedbh", unimedbh.Definition(), "username,type\n", func(i int) string {
			return fmt.Sprintf("person%07d@example.com,EMAIL\n", i)
		}},
		{"csv/unimedbh quoted", unimedbh.Definition(), "username,type\n", func(i int) string {
			return fmt.Sprintf("\"person%07d@example.com\",\"EMAIL\"\n", i)
		}},
		{"csv/medsenior", medsenior.Definition(), "cpf,emailId,celularId,primeiroAcesso\n", func(i int) string {
			return fmt.Sprintf("%011d,bed1066b-d8b5-47bc-a67f-%012d,1163cc70-cdf5-4cbb-95d7-%012d,false\n", i, i, i)
		}},
		{"jsonl/unimedbh", unimedbh.Definition(), "", func(i int) string {
			return fmt.Sprintf(`{"username":"person%07d@example.com","type":"EMAIL"}`+"\n", i)
		}},
		{"jsonl/medsenior", medsenior.Definition(), "", func(i int) string {
			return fmt.Sprintf(`{"cpf":"%011d","emailId":"bed1066b-d8b5-47bc-a67f-%012d","primeiroAcesso":false}`+"\n", i, i)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var text strings.Builder
			text.WriteString(c.head)
			const each = 10_000
			for i := range each {
				text.WriteString(c.row(i))
			}
			b.ReportAllocs()
			b.ResetTimer()
			n := 0
			for n < b.N {
				f, err := rows.Open(b.Context(), strings.NewReader(text.String()), c.def, rows.FileOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for row, err := range f.Rows() {
					if err != nil || row.Problems != nil {
						b.Fatal(row.Problems, err)
					}
					if n++; n == b.N {
						break
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
