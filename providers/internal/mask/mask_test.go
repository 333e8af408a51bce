package mask

import "testing"

func TestMasks(t *testing.T) {
	for _, c := range []struct {
		name     string
		mask     func(string) string
		in, want string
	}{
		{"Digits", Digits, "12345678901", "*********01"},
		{"Digits", Digits, "123.456.789-01", "*********01"},
		{"Digits", Digits, "59899000042", "*********42"},
		{"Digits", Digits, "12345", "***45"},
		{"Digits", Digits, "1234", "***"},
		{"Digits", Digits, "abc", "***"},
		{"Digits", Digits, "", ""},
		{"Email", Email, "teste@gmail.com", "t***@***.com"},
		{"Email", Email, "maria.silva@mail.example.com.br", "m***@***.br"},
		{"Email", Email, "ana@gmail.com", "***@***.com"},
		{"Email", Email, "@gmail.com", "***@***.com"},
		{"Email", Email, "maria@intranet", "m***@***"},
		{"Email", Email, "maria@x.y@z.maria-silva", "m***@***"},
		{"Email", Email, "maria@x.123", "m***@***"},
		{"Email", Email, "12345678901@gmail.com", "***@***.com"},
		{"Email", Email, "maria@", "m***@***"},
		{"Email", Email, "nobody", "n***"},
		{"Username", Username, "teste@gmail.com", "t***@***.com"},
		{"Username", Username, "123.456.789-01", "*********01"},
		{"Username", Username, "+55 (31) 99999-0042", "***********42"},
		{"Username", Username, "mariasilva", "m***"},
		{"Username", Username, "ána", "***"},
		{"Username", Username, "élise", "é***"},
		{"Username", Username, "1234567a", "***"},
		{"Username", Username, "\xff\xfe\xfd\xfc", "***"},
		{"Username", Username, "\u202eabc", "***"},
		{"Username", Username, "----", "***"},
		{"Username", Username, "", ""},
	} {
		if got := c.mask(c.in); got != c.want {
			t.Errorf("%s(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
	}
}
