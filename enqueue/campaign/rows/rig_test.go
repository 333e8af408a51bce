package rows_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
)

var definitions = map[string]providers.Definition{
	unimedbh.Name: unimedbh.Definition(), medsenior.Name: medsenior.Definition(), kinpos.Name: kinpos.Definition(),
}

// maxRow is the longest row that is taken.
const maxRow = 256 << 10

// shown is a row as a test's table has it: its line and its request, or its problems.
func shown(row rows.Row) string {
	if row.Problems == nil {
		return fmt.Sprintf("%d %s", row.Line, brief(row.Request))
	}
	parts := make([]string, len(row.Problems))
	for i, p := range row.Problems {
		parts[i] = p.Field + " " + p.Problem
	}
	if row.Request != nil {
		parts = append(parts, "AND A REQUEST")
	}
	return fmt.Sprintf("%d: %s", row.Line, strings.Join(parts, "; "))
}

func brief(r providers.Request) string {
	switch r := r.(type) {
	case unimedbh.Request:
		return r.Username + " " + r.Type
	case medsenior.Request:
		return fmt.Sprintf("%s %s/%s %v", r.CPF, r.EmailID, r.CelularID, *r.PrimeiroAcesso)
	case kinpos.Request:
		s := r.MobileNumber + " " + r.EmailAddress
		if r.AuditInfo != nil {
			s += fmt.Sprintf(" audit %+v", *r.AuditInfo)
		}
		if r.DeviceID != nil {
			s += fmt.Sprintf(" device %d", *r.DeviceID)
		}
		if r.AdditionalParameters != nil {
			s += fmt.Sprintf(" %v", r.AdditionalParameters)
		}
		return s
	}
	return fmt.Sprintf("%+v", r)
}

// mapping reads pairs that are right.
func mapping(t testing.TB, pairs ...string) rows.Mapping {
	t.Helper()
	m, err := rows.ParseMapping(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// read returns all rows as shown has them, and the error that ended them.
func read(t testing.TB, provider string, r io.Reader, o rows.FileOptions) ([]string, error) {
	t.Helper()
	f, err := rows.Open(t.Context(), r, definitions[provider], o)
	if err != nil {
		t.Fatalf("Open() = %v", err)
	}
	var got []string
	for row, err := range f.Rows() {
		if err != nil {
			return got, err
		}
		got = append(got, shown(row))
	}
	return got, nil
}

// compress packs a text as the named tool does.
func compress(t testing.TB, tool, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if tool == "zstd" {
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// people are the text of so many rows, with a header.
func people(n int) string {
	var b strings.Builder
	b.WriteString("username,type\n")
	for i := range n {
		fmt.Fprintf(&b, "person%06d@example.com,EMAIL\n", i)
	}
	return b.String()
}
