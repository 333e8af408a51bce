package main

import (
	"strings"
	"testing"
)

func TestWhatIsTypedInTheWrongPlaceIsNotShown(t *testing.T) {
	const body = `{"username":"pessoa@example.com","cpf":"98765432100"}`
	for _, args := range [][]string{
		{"send", body, "medsenior"},
		{"send", "unimedbh", body, body},
		{body},
		{"send", "unimedbh", body, "--valid-for", body},
		{"send", "unimedbh", body, "--valid-for=" + body},
		{"send", "unimedbh", "@" + body},
		{"send", "unimedbh", body, "--lane", "pessoa@example.com"},
		{"status", "id", "98765432100"},
		{"send", "98765432100", body},
		{"dead", "list", "--state", "pessoa@example.com"},
	} {
		res := otpq(t, nil, "", args...)
		res.want(t, exitUsage)
		if all := res.out + res.err; strings.Contains(all, "pessoa") || strings.Contains(all, "98765432100") {
			t.Errorf("otpq %q shows it: %s", args, all)
		}
	}
	for _, args := range [][]string{{"sned"}, {"campaign", "create", "x", "-", "--provider", "unimedbh", "--valid-for", "10000h"}, {"status", "a", "b-word"}, {"send", "unimedbh", "@/no/such-file-2026.json"}} {
		otpq(t, nil, "", args...).want(t, exitUsage, strings.TrimPrefix(args[len(args)-1], "@"))
	}
}

func TestForeignIDsDoNotMoveTheCursor(t *testing.T) {
	if got, want := printable("a\nb\x1b[2Jc é"), "a\uFFFDb\uFFFD[2Jc é"; got != want {
		t.Errorf("printable() = %q, want %q", got, want)
	}
}
