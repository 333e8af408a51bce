package medsenior_test

import (
	"fmt"

	"github.com/otpq/otpq/providers/medsenior"
)

// PrimeiroAcesso is a pointer, so that leaving it out is an error and not a
// silent false.
func ExampleRequest() {
	r := medsenior.Request{
		CelularID:      "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
		CPF:            "12345678901",
		PrimeiroAcesso: new(false),
	}
	fmt.Println(r.MaskedRecipient(), r.Validate())

	r.PrimeiroAcesso = nil
	fmt.Println(r.Validate())
	// Output:
	// *********01 <nil>
	// invalid request: primeiroAcesso is required: true or false
}

func ExampleDecode() {
	_, err := medsenior.Decode([]byte(`{"celularID": "1163cc70", "cpf": "123.456.789-01"}`))
	fmt.Println(err)
	// Output:
	// invalid request: celularID is not a field of medsenior; did you mean celularId?; emailId is required unless celularId is given; celularId is required unless emailId is given; cpf must be 11 digits, without dots or hyphen; primeiroAcesso is required: true or false
}
