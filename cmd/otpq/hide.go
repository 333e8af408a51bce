package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const hidden = "(not shown: it may name a person)"

var (
	// plainWord is what commands, flags, durations, files and ids are made of.
	plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:,=+-]{1,120}$`)
	// number is long enough for a phone or a CPF.
	number = regexp.MustCompile(`[0-9]{5,}`)
)

// hidePersonal takes out of a message about wrong usage what the person typed in
// the wrong place, unless it is a plain word: terminals are recorded, and a
// request names somebody.
func hidePersonal(message string, args []string) string {
	for _, arg := range args {
		_, value, _ := strings.Cut(arg, "=")
		for _, typed := range []string{arg, value, strings.TrimPrefix(arg, "@")} {
			if typed == "" || isPlain(typed) {
				continue
			}
			message = strings.ReplaceAll(message, strconv.Quote(typed), hidden)
			message = strings.ReplaceAll(message, typed, hidden)
		}
	}
	return message
}

// isPlain reports whether what was typed names nobody. A duration may be as long as
// somebody's number: it ends in its unit.
func isPlain(typed string) bool {
	if !plainWord.MatchString(typed) {
		return false
	}
	_, err := time.ParseDuration(typed)
	return err == nil || !number.MatchString(typed) || strings.Contains(typed, "/")
}

// printable replaces what would move a terminal's cursor: ids of what others put
// into the queue may hold anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
