package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagTakes says what a flag of a type takes.
var flagTakes = map[string]string{
	"float64": "a number, such as 10 or 0.5", "int": "a whole number, such as 5", "int64": "a whole number, such as 5",
	"uint64": "a whole number, such as 5", "duration": "a duration, such as 90s, 5m or 2h", "bool": "true or false",
}

// flagError says in words what a flag takes, in the place of the error of Go's parser.
func flagError(err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	takes, ok := flagTakes[wrong.GetFlag().Value.Type()]
	switch {
	case !ok:
		return err
	case errors.Is(err, strconv.ErrRange):
		takes += ", and not as large"
	}
	return fmt.Errorf("--%s must be %s, not %q", wrong.GetFlag().Name, takes, wrong.GetValue())
}

// noEmptyFlags refuses a text that is given and empty: most likely a variable in a
// script that is not set, and to do as if the flag were not there is seldom meant.
func noEmptyFlags(cmd *cobra.Command) (err error) {
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Value.Type() == "string" && f.Value.String() == "" && err == nil {
			err = usagef("--%s must not be empty: leave it out, or is a variable not set?", f.Name)
		}
	})
	return err
}
