package rows_test

import (
	"bytes"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign/rows"
)

// Whatever a file is: no panic, lines that rise, and rows that are either valid or have
// problems; and the same however it comes in.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("username,type\nana,EMAIL\n\"b\nia\",EMAIL\r\n"), "unimedbh", "type==EMAIL")
	f.Add([]byte("\xef\xbb\xbfcpf;celularId;primeiroAcesso\n1;\"a\";x\n\"\n\"\"\n"), "medsenior", "")
	f.Add([]byte("{\"mobileNumber\":\"59899000000\",\"ip\":1}\n[]\n"), "kinpos", "auditInfo.ipAddress=ip")
	f.Add([]byte("59899000000\t7\n"), "kinpos", "mobileNumber=1")
	f.Add(compress(f, "gzip", people(3)), "unimedbh", "")
	f.Add(compress(f, "zstd", people(3)), "unimedbh", "")
	f.Fuzz(func(t *testing.T, data []byte, provider, pair string) {
		def, ok := definitions[provider]
		if !ok {
			def = definitions["unimedbh"]
		}
		var o rows.FileOptions
		if m, err := rows.ParseMapping([]string{pair}); err == nil {
			o.Map = m
		}
		read := func(slow bool) (got []rows.Row, errs []error) {
			var in = iotest.DataErrReader(bytes.NewReader(data))
			if slow {
				in = iotest.HalfReader(bytes.NewReader(data))
			}
			file, err := rows.Open(t.Context(), in, def, o)
			if err != nil {
				return nil, []error{err}
			}
			for row, err := range file.Rows() {
				if err != nil {
					errs = append(errs, err)
					continue
				}
				got = append(got, row)
			}
			if (file.Digest() == "") == (errs == nil) {
				t.Errorf("the digest is %q after %v", file.Digest(), errs)
			}
			return got, errs
		}
		got, errs := read(false)
		if len(errs) > 1 {
			t.Errorf("errors %v, want at most one", errs)
		}
		last := 0
		for _, row := range got {
			if row.Line <= last {
				t.Errorf("line %d follows line %d", row.Line, last)
			}
			last = row.Line
			if (row.Request == nil) != (row.Problems != nil) {
				t.Fatalf("row = %+v, want a request or problems", row)
			}
			if row.Request == nil {
				continue
			}
			if err := row.Request.Validate(); err != nil {
				t.Errorf("the request of line %d is not valid: %v", row.Line, err)
			}
			if row.Request.ProviderName() != def.Name || row.Request.Recipient() == "" {
				t.Errorf("row = %+v", row)
			}
		}
		if last > bytes.Count(data, []byte("\n"))+1 && errs == nil && !bytes.HasPrefix(data, []byte("\x1f\x8b")) && !bytes.Contains(data, []byte("\x2a\x4d\x18")) && !bytes.HasPrefix(data, []byte("\x28\xb5\x2f\xfd")) {
			t.Errorf("line %d of %d", last, bytes.Count(data, []byte("\n"))+1)
		}
		again, _ := read(true)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("read in other pieces, it has other rows (-first +second):\n%s", diff)
		}
	})
}
