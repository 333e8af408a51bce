package rows_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign/rows"
)

func TestRowsAreReadAsTheyAreMeant(t *testing.T) {
	const ana, bia = "ana@example.com EMAIL", "bia@example.com EMAIL"
	long := strings.Repeat("x", maxRow)
	for name, c := range map[string]struct {
		provider string // unimedbh unless it says
		in       string
		options  rows.FileOptions
		pairs    []string
		want     []string
	}{
		"a header and two rows":           {in: "username,type\nana@example.com,EMAIL\nbia@example.com,EMAIL\n", want: []string{"2 " + ana, "3 " + bia}},
		"columns in another order":        {in: "type,username\nEMAIL,ana@example.com\n", want: []string{"2 " + ana}},
		"no line break at the end":        {in: "username,type\nana@example.com,EMAIL", want: []string{"2 " + ana}},
		"line breaks of Windows":          {in: "username,type\r\nana@example.com,EMAIL\r\n\"bia@example.com\",\"EMAIL\"\r\n", want: []string{"2 " + ana, "3 " + bia}},
		"a byte order mark":               {in: "\xef\xbb\xbfusername,type\nana@example.com,EMAIL\n", want: []string{"2 " + ana}},
		"a byte order mark and a quote":   {in: "\xef\xbb\xbf\"username\",\"type\"\nana@example.com,EMAIL\n", want: []string{"2 " + ana}},
		"a byte order mark before JSON":   {in: "\xef\xbb\xbf" + `{"username":"ana@example.com","type":"EMAIL"}`, want: []string{"1 " + ana}},
		"semicolons":                      {in: "username;type\nana@example.com;EMAIL\n", want: []string{"2 " + ana}},
		"tabs":                            {in: "username\ttype\nana@example.com\tEMAIL\n", want: []string{"2 " + ana}},
		"semicolons and numbers' commas":  {provider: "kinpos", in: "59899000000;-34,9;-56,1\n", pairs: []string{"mobileNumber=1", "latitude=2"}, want: []string{"1 59899000000 "}},
		"a separator that was said":       {in: "ana@example.com|EM,AI;L\n", options: rows.FileOptions{Separator: '|'}, pairs: []string{"username=1", "type=2"}, want: []string{"1 ana@example.com EM,AI;L"}},
		"empty lines":                     {in: "\n\r\nusername,type\n\n  \nana@example.com,EMAIL\n\n\nbia@example.com,EMAIL\n\n", want: []string{"6 " + ana, "9 " + bia}},
		"blanks around cells":             {in: "username , type\n ana@example.com ,EMAIL \n \"bia@example.com\" , \"EMAIL\"\n", want: []string{"2 " + ana, "3 " + bia}},
		"nothing":                         {in: ""},
		"a byte order mark alone":         {in: "\xef\xbb\xbf"},
		"empty lines alone":               {in: "\n\n"},
		"a header alone":                  {in: "username,type\n"},
		"quotes in quotes":                {in: "username,type\n\"ana \"\"a\"\" lima\",EMAIL\n", want: []string{`2 ana "a" lima EMAIL`}},
		"separators in quotes":            {in: "username,type\n\"lima, ana\",EMAIL\n", want: []string{"2 lima, ana EMAIL"}},
		"a line break in quotes":          {in: "username,type,note\nana@example.com,EMAIL,\"one\ntwo\r\n\nthree\"\nbia@example.com,EMAIL,\n", pairs: []string{"type=type"}, want: []string{"2 " + ana, "6 " + bia}},
		"a line break in a quoted header": {in: "username,type,\"a\nnote\"\nana@example.com,EMAIL,x\n", pairs: []string{"type=type"}, want: []string{"3 " + ana}},
		"a line break in what is sent":    {in: "username,type\n\"ana\n@example.com\",EMAIL\n", want: []string{"2: username must not hold control characters"}},

		// Headers and mappings.
		"columns by number":                    {in: "ana@example.com,EMAIL\n", pairs: []string{"username=1", "type=2"}, want: []string{"1 " + ana}},
		"columns by number under a header":     {in: "username,type\nana@example.com,EMAIL\n", pairs: []string{"username=1", "type=2"}, want: []string{"2 " + ana}},
		"columns by number, a header for sure": {in: "who,what\nana@example.com,EMAIL\n", options: rows.FileOptions{Header: rows.HeaderPresent}, pairs: []string{"username=1", "type=2"}, want: []string{"2 " + ana}},
		"a first row like a header":            {in: "type,EMAIL\n", options: rows.FileOptions{Header: rows.HeaderAbsent}, pairs: []string{"username=1", "type=2"}, want: []string{"1 type EMAIL"}},
		"columns by name":                      {in: "nome,e-mail,tipo\nAna,ana@example.com,EMAIL\n", pairs: []string{"username=e-mail", "type=tipo"}, want: []string{"2 " + ana}},
		"a value for all":                      {in: "username\nana@example.com\nbia@example.com\n", pairs: []string{"type==EMAIL"}, want: []string{"2 " + ana, "3 " + bia}},
		"a value instead of a column":          {in: "username,type\nana@example.com,SMS\n", pairs: []string{"type==EMAIL"}, want: []string{"2 " + ana}},
		"a column instead of its own":          {in: "username,login,type\nAna,ana@example.com,EMAIL\n", pairs: []string{"username=login"}, want: []string{"2 " + ana}},
		"a column for two fields":              {in: "EMAIL\n", pairs: []string{"username=1", "type=1"}, want: []string{"1 EMAIL EMAIL"}},
		"columns that are not wanted":          {in: "id,username,type\n1,ana@example.com,EMAIL\n", pairs: []string{"username=username"}, want: []string{"2 " + ana}},

		// Types.
		"true and false of all kinds": {provider: "medsenior", in: "cpf;celularId;primeiroAcesso\n" +
			"12345678901;c;true\n12345678901;c;FALSE\n12345678901;c;1\n12345678901;c;0\n12345678901;c;maria\n12345678901;c;\n",
			want: []string{"2 12345678901 /c true", "3 12345678901 /c false", "4 12345678901 /c true", "5 12345678901 /c false",
				"6: primeiroAcesso must be true or false", "7: primeiroAcesso is required: true or false"}},
		"false for all": {provider: "medsenior", in: "cpf,emailId\n12345678901,e\n", pairs: []string{"primeiroAcesso==false"}, want: []string{"2 12345678901 e/ false"}},
		"everything wrong at once": {provider: "medsenior", in: "cpf,primeiroAcesso\n123,98765432100\n",
			want: []string{"2: primeiroAcesso must be true or false; emailId is required unless celularId is given; celularId is required unless emailId is given; cpf must be 11 digits, without dots or hyphen"}},
		"numbers, structs and maps": {provider: "kinpos", in: "mobileNumber,deviceId,auditInfo.ipAddress,auditInfo.countryCode,additionalParameters.plan,additionalParameters.a.b\n" +
			"59899000000,7,203.0.113.7,UY,gold,x\n59899000001,,,,,\n59899000002,7.5,,,,\n59899000003,9223372036854775808,,,,\n",
			want: []string{"2 59899000000  audit {IPAddress:203.0.113.7 Latitude: Longitude: CountryCode:UY} device 7 map[a.b:x plan:gold]", "3 59899000001 ",
				"4: deviceId must be a whole number of at most 64 bits", "5: deviceId must be a whole number of at most 64 bits"}},
		"a nested field by number": {provider: "kinpos", in: "59899000000,UY\n", pairs: []string{"mobileNumber=1", "auditInfo.countryCode=2", "deviceId==8"},
			want: []string{"1 59899000000  audit {IPAddress: Latitude: Longitude: CountryCode:UY} device 8"}},
		"text that is not UTF-8": {in: "username,type\njos\xe9,EMAIL\n", want: []string{"2: username is not valid UTF-8"}},

		// Rows that are wrong stop no others.
		"too few and too many cells":       {in: "username,type\nana@example.com\nana@example.com,EMAIL,x\nbia@example.com,EMAIL\n", want: []string{"2: row has 1 column where the first row has 2", "3: row has 3 columns where the first row has 2", "4 " + bia}},
		"a quote that is not closed":       {in: "username,type\n\"ana@example.com,EMAIL\nbia@example.com,EMAIL\n", want: []string{"2: row has a quote that is not closed", "3 " + bia}},
		"a quote that another closes":      {in: "username,type\n\"ana@example.com,EMAIL\nbia@example.com,EMAIL\n\"bia@example.com\",EMAIL\n", want: []string{"2: row has text behind a closing quote", "3 " + bia, "4 " + bia}},
		"a quote that takes in others":     {in: "username,type\n\"ana@example.com,EMAIL\nbia@example.com,EMAIL\nana,EMAIL\"\n", want: []string{"2: row has 1 column where the first row has 2", "3 " + bia, "4: row has a quote within a cell that is not quoted"}},
		"a quote in the middle":            {in: "username,type\nana \"a\" lima,EMAIL\nbia@example.com,EMAIL\n", want: []string{"2: row has a quote within a cell that is not quoted", "3 " + bia}},
		"a first row that is wrong":        {in: "\"ana\"x,EMAIL\nbia@example.com,EMAIL\n", pairs: []string{"username=1", "type=2"}, want: []string{"1: row has text behind a closing quote", "2 " + bia}},
		"too few cells for the mapping":    {in: "\"a\"x\nbia@example.com\n", pairs: []string{"username=1", "type=2"}, want: []string{"1: row has text behind a closing quote", "2: type has no column in this row"}},
		"a row that is too long":           {in: "username,type\n" + long + ",EMAIL\nbia@example.com,EMAIL\n", want: []string{"2: row is longer than 256 KiB", "3 " + bia}},
		"a row that is far too long":       {in: "username,type\n" + strings.Repeat(long, 9) + "\nbia@example.com,EMAIL\n", want: []string{"2: row is longer than 256 KiB", "3 " + bia}},
		"a quoted row that is too long":    {in: "username,type\n\"" + long + "\",EMAIL\nbia@example.com,EMAIL\n", want: []string{"2: row is longer than 256 KiB", "3 " + bia}},
		"a last row that is too long":      {in: "username,type\nbia@example.com,EMAIL\n" + long + "x", want: []string{"2 " + bia, "3: row is longer than 256 KiB"}},
		"the longest row":                  {in: "username,type\n" + long[:maxRow-7] + ",EMAIL\n", want: []string{"2: username must have at most 254 characters"}},
		"the longest row, at the end":      {in: "username,type\n" + long[:maxRow-6] + ",EMAIL", want: []string{"2: username must have at most 254 characters"}},
		"an open quote before many rows":   {in: "username,type\n\"ana\n" + strings.Repeat("\n", maxRow) + "bia@example.com,EMAIL\n", want: []string{"2: row has a quote that is not closed", fmt.Sprint(maxRow+3, " ", bia)}},
		"an open quote at the longest row": {in: "username,type\n\"ana\n" + long[:maxRow-20] + "\nbia@example.com,EMAIL\n", want: []string{"2: row has a quote that is not closed", "3: row has 1 column where the first row has 2", "4 " + bia}},

		// JSONL.
		"JSON":                         {in: `{"username":"ana@example.com","type":"EMAIL"}` + "\r\n\n \t\n" + `  {"type":"EMAIL","username":"bia@example.com"}`, want: []string{"1 " + ana, "4 " + bia}},
		"JSON that is wrong":           {in: "{\"username\":\"ana@example.com\",\"type\":\"EMAIL\"}\n{\"username\":\n[]\nnull\n{\"username\":7,\"usertype\":\"EMAIL\"}\n" + `{"username":"bia@example.com","type":"EMAIL"}`, want: []string{"1 " + ana, "2: body is not valid JSON (byte 12)", "3: body must be a JSON object", "4: body must be a JSON object", "5: username must be a string; usertype is not a field of unimedbh; type is required", "6 " + bia}},
		"JSON that is too long":        {in: `{"username":"ana@example.com","type":"EMAIL"}` + "\n{\"username\":\"" + long + "\"}\n" + `{"username":"bia@example.com","type":"EMAIL"}`, want: []string{"1 " + ana, "2: row is longer than 256 KiB", "3 " + bia}},
		"JSON that was said":           {in: "nonsense\n" + `{"username":"bia@example.com","type":"EMAIL"}`, options: rows.FileOptions{Format: rows.JSONL}, want: []string{"1: body is not valid JSON (byte 2)", "2 " + bia}},
		"JSON of other names":          {in: `{"login":"ana@example.com","id":7,"username":"Ana"}` + "\n{}\n[]\n" + `{"login":"bia@example.com","login":"x"}`, pairs: []string{"username=login", "type==EMAIL"}, want: []string{"1 " + ana, "2: username is required", "3: body must be a JSON object", "4: login is not a field of unimedbh; login is not a field of unimedbh; username is required; type is required"}},
		"JSON with a misspelt name":    {in: `{"userName":"ana@example.com","note":"x"}`, pairs: []string{"type==EMAIL"}, want: []string{"1: userName is not a field of unimedbh; did you mean username?; username is required"}},
		"JSON of other names, nested":  {provider: "kinpos", in: `{"phone":"59899000000","ip":"203.0.113.7","auditInfo":{"latitude":"1"},"plan":"gold"}` + "\n" + `{"phone":"59899000000","auditInfo":null}` + "\n" + `{"phone":"59899000000","auditInfo":[]}`, pairs: []string{"mobileNumber=phone", "auditInfo.ipAddress=ip", "auditInfo.countryCode==UY", "deviceId==007", "additionalParameters.plan=plan"}, want: []string{"1 59899000000  audit {IPAddress:203.0.113.7 Latitude:1 Longitude: CountryCode:UY} device 7 map[plan:gold]", "2 59899000000  audit {IPAddress: Latitude: Longitude: CountryCode:UY} device 7", "3: auditInfo must be a JSON object"}},
		"JSON with a flag for all":     {provider: "medsenior", in: `{"cpf":"12345678901","emailId":"e"}`, pairs: []string{"primeiroAcesso==TRUE"}, want: []string{"1 12345678901 e/ true"}},
		"JSON with a flag of its own":  {provider: "medsenior", in: `{"cpf":"12345678901","emailId":"e","first":"false"}`, pairs: []string{"primeiroAcesso=first"}, want: []string{"1: primeiroAcesso must be true or false"}},
		"JSON, a mapping of no pairs":  {in: `{"username":"ana@example.com","type":"EMAIL"}`, pairs: []string{}, want: []string{"1 " + ana}},
		"JSON, a false flag for all":   {provider: "medsenior", in: `{"cpf":"12345678901","emailId":"e"}`, pairs: []string{"primeiroAcesso==0"}, want: []string{"1 12345678901 e/ false"}},
		"CSV that begins with a brace": {in: "{x,EMAIL\n", options: rows.FileOptions{Format: rows.CSV}, pairs: []string{"username=1", "type=2"}, want: []string{"1 {x EMAIL"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.provider == "" {
				c.provider = "unimedbh"
			}
			c.options.Map = mapping(t, c.pairs...)
			got, err := read(t, c.provider, strings.NewReader(c.in), c.options)
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("Rows() = %v (-want +got):\n%s", err, diff)
			}
			if len(c.in) < 1000 {
				got, err = read(t, c.provider, iotest.OneByteReader(strings.NewReader(c.in)), c.options)
				if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
					t.Errorf("Rows() read byte by byte = %v (-want +got):\n%s", err, diff)
				}
			}
		})
	}
}

func TestWhatIsWrongWithAllRowsIsAnErrorBeforeAny(t *testing.T) {
	for name, c := range map[string]struct {
		provider, in string
		options      rows.FileOptions
		pairs        []string
		want         string
	}{
		"a column that is no field":            {in: "username,type,note\na,b,c\n", want: `column "note" is not a field of unimedbh (username, type). Columns without a use are ignored where a mapping is given`},
		"a column that is misspelt":            {in: "Username,type\na,b\n", want: `column "Username" is not a field of unimedbh; did you mean username? Columns without a use are ignored where a mapping is given`},
		"a misspelt column with a mapping":     {provider: "medsenior", in: "CPF,celularID,tel\n1,2,3\n", pairs: []string{"cpf=CPF"}, want: `column "celularID" is not a field of medsenior; did you mean celularId? Columns without a use are ignored where a mapping is given`},
		"a column that is there twice":         {in: "username,type,type\na,b,c\n", want: `column "type" is there more than once`},
		"a column that is no name":             {in: "username,98765432100\na,b\n", want: "column 2 is not a field of unimedbh (username, type). Columns without a use are ignored where a mapping is given"},
		"no header":                            {in: "ana@example.com,EMAIL\n", want: "no column of the first row is called as a field of unimedbh (username, type): map its columns, by name or by number"},
		"no header, but it was said":           {in: "a,EMAIL\n", options: rows.FileOptions{Header: rows.HeaderPresent}, want: `column "a" is not a field of unimedbh (username, type). Columns without a use are ignored where a mapping is given`},
		"no header, and values only":           {in: "ana@example.com\n", pairs: []string{"type==EMAIL"}, want: "no column of the first row is called as a field of unimedbh (username, type): map its columns, by name or by number"},
		"a header that is malformed":           {in: "username,\"type\nana,EMAIL\n", pairs: []string{"username=username"}, want: "the input has a header, in line 1, that has a quote that is not closed"},
		"a header that is too long":            {in: "\n" + strings.Repeat("x", maxRow+1), pairs: []string{"username=username"}, want: "the input has a header, in line 2, that is longer than 256 KiB"},
		"a mapping of no field":                {in: "a,b\n", pairs: []string{"user=1"}, want: `mapping "user=1" is not a field of unimedbh (username, type)`},
		"a mapping of a misspelt field":        {in: "a,b\n", pairs: []string{"user_name=1"}, want: `mapping "user_name=1" is not a field of unimedbh; did you mean username?`},
		"a mapping of a struct":                {provider: "kinpos", in: "a,b\n", pairs: []string{"auditInfo=1"}, want: `mapping "auditInfo=1" is not a field of kinpos (userTypeAltId, `},
		"a mapping of a map without a name":    {provider: "kinpos", in: "a,b\n", pairs: []string{"additionalParameters.=1"}, want: `mapping "additionalParameters.=1" is not a field of kinpos (`},
		"a column that is not there":           {in: "username,type\na,b\n", pairs: []string{"username=e-mail"}, want: `mapping "username=e-mail" names a column that the header does not have`},
		"a mapped column that is there twice":  {in: "e-mail,e-mail\na,b\n", pairs: []string{"username=e-mail"}, want: `mapping "username=e-mail" names a column that the header has more than once`},
		"a number that is not there":           {in: "a,b\n", pairs: []string{"username=3"}, want: `mapping "username=3" names a column that is not there: the first row has 2 columns`},
		"a name where there is no header":      {in: "a,b\n", options: rows.FileOptions{Header: rows.HeaderAbsent}, pairs: []string{"username=1", "type=b"}, want: `mapping "type=b" names a column, and there is no header`},
		"a value of the wrong type":            {provider: "medsenior", in: "cpf\n1\n", pairs: []string{"primeiroAcesso==maybe"}, want: `mapping "primeiroAcesso==maybe" cannot be: primeiroAcesso must be true or false`},
		"a value of the wrong type, for JSON":  {provider: "kinpos", in: "{}", pairs: []string{"deviceId==x"}, want: `mapping "deviceId==x" cannot be: deviceId must be a whole number of at most 64 bits`},
		"a number for JSON":                    {in: "{}", pairs: []string{"username=1"}, want: `mapping "username=1" has a number: members of JSON have names`},
		"a format that there is not":           {in: "{}", options: rows.FileOptions{Format: "xml"}, want: `the input cannot be of format "xml": there are csv and jsonl`},
		"a separator that cannot be":           {in: "a\n", options: rows.FileOptions{Separator: '"'}, want: "the input cannot have that separator: it is a byte of ASCII, and no quote, blank or line break"},
		"a spreadsheet":                        {in: "PK\x03\x04....", want: "the input is a spreadsheet or a zip archive: save the sheet as CSV, or unpack it"},
		"another compression":                  {in: "BZh91AY", want: "the input is compressed by bzip2: only gzip and zstd are read"},
		"UTF-16 without a mark":                {in: "u\x00s\x00\n\x00", want: "the input is no text, or is UTF-16: save it as UTF-8"},
		"a program":                            {in: "\x7fELF\x02\x00\x00", pairs: []string{"username=1"}, want: "the input is no text, or is UTF-16: save it as UTF-8"},
		"lines of an old Mac":                  {in: "username,type\rana@example.com,EMAIL\r", want: "the input has lines that end in carriage returns alone: save it with the line breaks of Unix or Windows"},
		"a JSON array":                         {in: "[\n {\"username\":\"ana@example.com\",\"type\":\"EMAIL\"}\n]\n", want: "the input is one JSON array: write a line for each request, as jq -c '.[]' does"},
		"a first row that is too long":         {in: strings.Repeat("x", maxRow+1), want: "the input has a first row, in line 1, that is longer than 256 KiB"},
		"a first row that is malformed":        {in: "\"username,type\nana@example.com,EMAIL\n", pairs: []string{"type==EMAIL"}, want: "the input has a first row, in line 1, that has a quote that is not closed"},
		"UTF-16":                               {in: "\xff\xfeu\x00s\x00", want: "the input is UTF-16: save it as UTF-8"},
		"what only begins as gzip":             {in: "\x1f\x8bxxxxxxxxxxxx", want: "the compressed input is damaged, or something else is behind its end: gzip: invalid header"},
		"gzip that ends at once":               {in: "\x1f\x8b\x08", want: "the input is cut short: unexpected EOF"},
		"what only begins as zstd":             {in: "\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff\xff", want: "cannot read on at line 1: "},
		"a value that is empty in the program": {in: "username\na\n", options: rows.FileOptions{Map: rows.Mapping{{Field: "username"}}}, want: `mapping "username=" names a column that the header does not have`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.provider == "" {
				c.provider = "unimedbh"
			}
			if c.pairs != nil {
				c.options.Map = mapping(t, c.pairs...)
			}
			_, err := rows.Open(t.Context(), strings.NewReader(c.in), definitions[c.provider], c.options)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("Open() = %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestCompressedFilesAreReadAsTheyAre(t *testing.T) {
	text := people(5000)
	want, err := read(t, "unimedbh", strings.NewReader(text), rows.FileOptions{})
	if err != nil || len(want) != 5000 {
		t.Fatalf("%d rows, %v", len(want), err)
	}
	half := strings.Index(text, "\nperson002500") + 5
	for name, packed := range map[string][]byte{
		"gzip":              compress(t, "gzip", text),
		"zstd":              compress(t, "zstd", text),
		"two gzips":         append(compress(t, "gzip", text[:half]), compress(t, "gzip", text[half:])...),
		"two zstds":         append(compress(t, "zstd", text[:half]), compress(t, "zstd", text[half:])...),
		"zstd after a skip": append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), compress(t, "zstd", text)...),
		"gzip and a mark":   compress(t, "gzip", "\xef\xbb\xbf"+text),
	} {
		got, err := read(t, "unimedbh", bytes.NewReader(packed), rows.FileOptions{})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: Rows() = %v (-want +got):\n%.1000s", name, err, diff)
		}
	}
}

func TestWhatIsCutShortIsAnErrorOfItsLineAndNoRowIsHalf(t *testing.T) {
	text := people(20_000)
	for name, in := range map[string]io.Reader{
		"gzip":           bytes.NewReader(cut(compress(t, "gzip", text))),
		"zstd":           bytes.NewReader(cut(compress(t, "zstd", text))),
		"a broken pipe":  io.MultiReader(strings.NewReader(text[:100_010]), iotest.ErrReader(io.ErrUnexpectedEOF)),
		"a failing disk": io.MultiReader(strings.NewReader(text[:100_010]), iotest.ErrReader(os.ErrDeadlineExceeded)),
		"in quotes":      io.MultiReader(strings.NewReader(text[:100_010]+"\n\"ana\nbia"), iotest.ErrReader(io.ErrUnexpectedEOF)),
	} {
		got, err := read(t, "unimedbh", in, rows.FileOptions{})
		var at *rows.ReadError
		if !errors.As(err, &at) || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: Rows() = %v, want a ReadError", name, err)
			continue
		}
		if name == "in quotes" { // the row before it is half, and cannot be known to be
			got = got[:len(got)-1]
			at.Line--
		}
		if len(got) < 100 || at.Line != len(got)+2 || !strings.Contains(err.Error(), fmt.Sprint("line ", at.Line)) && name != "in quotes" {
			t.Errorf("%s: Rows() = %v after %d rows", name, err, len(got))
		}
		for i, row := range got {
			if want := fmt.Sprintf("%d person%06d@example.com EMAIL", i+2, i); row != want {
				t.Fatalf("%s: row %d is %q, want %q", name, i, row, want)
			}
		}
	}
}

func TestACompressedFileThatIsDamagedIsCalledThat(t *testing.T) {
	text := people(20_000)
	for name, damage := range map[string]func([]byte) []byte{
		"in the middle":     func(packed []byte) []byte { copy(packed[len(packed)/2:], "damaged damaged damaged"); return packed },
		"in its checksum":   func(packed []byte) []byte { packed[len(packed)-2] ^= 0xff; return packed },
		"with a tail to it": func(packed []byte) []byte { return append(packed, "and something else behind it"...) },
	} {
		for _, tool := range []string{"gzip", "zstd"} {
			_, err := read(t, "unimedbh", bytes.NewReader(damage(compress(t, tool, text))), rows.FileOptions{})
			if err == nil || !strings.Contains(err.Error(), "the compressed input is damaged, or something else is behind its end: ") {
				t.Errorf("%s %s: Rows() = %v, want it called damaged", tool, name, err)
			}
		}
	}
	// A disk that fails is no damage of what is on it.
	packed := compress(t, "gzip", text)
	_, err := read(t, "unimedbh", io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(os.ErrDeadlineExceeded)), rows.FileOptions{})
	if !errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "damaged") {
		t.Errorf("Rows() of a disk that fails = %v", err)
	}
}

func cut(packed []byte) []byte { return packed[:len(packed)*3/4] }

func TestTheDigestIsOfTheBytesAsTheyLieThere(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"plain": []byte(people(3000)), "gzip": compress(t, "gzip", people(3000)), "zstd": compress(t, "zstd", people(3000)), "nothing": nil,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := rows.DigestFile(t.Context(), path)
		if err != nil || !strings.HasPrefix(want, "sha256:") || len(want) != len("sha256:")+64 {
			t.Fatalf("DigestFile() = %q, %v", want, err)
		}
		f, err := rows.Open(t.Context(), bytes.NewReader(data), definitions["unimedbh"], rows.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Digest(); got != "" {
			t.Errorf("%s: Digest() before the end = %q", name, got)
		}
		for _, err := range f.Rows() {
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := f.Digest(); got != want {
			t.Errorf("%s: Digest() = %q, want %q", name, got, want)
		}
		for _, err := range f.Rows() {
			if err == nil {
				t.Errorf("%s: the rows are read twice", name)
			}
		}
	}
	// What other tools say of it.
	const hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	if got, err := rows.Digest(t.Context(), strings.NewReader("hello")); got != hello || err != nil {
		t.Errorf("Digest() = %q, %v, want %q", got, err, hello)
	}
	if _, err := rows.DigestFile(t.Context(), filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("DigestFile() of no file = %v", err)
	}
	if _, err := rows.Digest(t.Context(), iotest.ErrReader(os.ErrPermission)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Digest() of what cannot be read = %v", err)
	}
}

func TestAContextThatEndsEndsTheRows(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, err := rows.Open(ctx, strings.NewReader(people(100_000)), definitions["unimedbh"], rows.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err = range f.Rows() {
		if n++; n == 10 {
			cancel()
		}
	}
	if !errors.Is(err, context.Canceled) || n > 50_000 || f.Digest() != "" {
		t.Errorf("after %d rows: %v, digest %q; want %v soon and no digest", n, err, f.Digest(), context.Canceled)
	}
	if _, err := rows.Open(ctx, strings.NewReader("x"), definitions["unimedbh"], rows.FileOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open() = %v, want %v", err, context.Canceled)
	}
	if _, err := rows.Digest(ctx, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Digest() = %v, want %v", err, context.Canceled)
	}
}

// generated is a text of so many rows that is nowhere as a whole.
type generated struct {
	row  func(i int) string
	n, i int
	rest string
}

// Read implements [io.Reader].
func (g *generated) Read(p []byte) (int, error) {
	for g.rest == "" {
		if g.i == g.n {
			return 0, io.EOF
		}
		g.rest = g.row(g.i)
		g.i++
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	const many, most = 300_000, 2 << 20
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, g := range map[string]*generated{
		"CSV": {n: many, row: func(i int) string { return fmt.Sprintf("person%06d@example.com,EMAIL\n", i) }},
		// 150 MB of one row, and one quote that is never closed.
		"a row without end": {n: many, row: func(int) string { return strings.Repeat("x", 500) }},
		"an open quote":     {n: many, row: func(i int) string { return "\""[min(i, 1):] + strings.Repeat("x", 500) + "\n" }},
		"JSON":              {n: many, row: func(i int) string { return fmt.Sprintf(`{"username":"person%06d@example.com","type":"EMAIL"}`+"\n", i) }},
	} {
		o := rows.FileOptions{Map: mapping(t, "username=1", "type==EMAIL")}
		if name == "JSON" {
			o.Map = nil
		}
		before := heap()
		f, err := rows.Open(t.Context(), g, definitions["unimedbh"], o)
		if err != nil {
			t.Fatal(err)
		}
		n, grown := 0, int64(0)
		for _, err := range f.Rows() {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n%100_000 == 0 {
				grown = max(grown, int64(heap()-before))
			}
		}
		grown = max(grown, int64(heap()-before))
		runtime.KeepAlive(f)
		if name != "a row without end" && n != many || grown > most {
			t.Errorf("%s: %d rows took %d KiB, want %d rows and less than %d KiB", name, n, grown>>10, many, most>>10)
		}
	}
}
