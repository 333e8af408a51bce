package providers

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTheZeroOutcomeClaimsNothing(t *testing.T) {
	var out Outcome
	if out.Kind != Ambiguous {
		t.Errorf("Outcome{}.Kind = %v, want ambiguous: a forgotten reply must be neither sent nor safe to repeat", out.Kind)
	}
}

func TestKindNames(t *testing.T) {
	for kind, want := range map[Kind]string{
		Ambiguous: "ambiguous", Accepted: "accepted", Rejected: "rejected", RetryLater: "retry_later", Kind(9): "Kind(9)",
	} {
		if got := kind.String(); got != want {
			t.Errorf("Kind(%d).String() = %q, want %q", int(kind), got, want)
		}
	}
}

func TestOutcomesSayWhatTheirNamesSay(t *testing.T) {
	err := errors.New("why")
	for name, c := range map[string]struct{ got, want Outcome }{
		"accepted": {AcceptedFor(time.Minute), Outcome{Kind: Accepted, ExpiresIn: time.Minute}},
		"rejected": {Reject(ReasonInvalidRequest, err), Outcome{Kind: Rejected, Reason: ReasonInvalidRequest, Err: err}},
		"retry":    {Retry(ReasonRateLimited, time.Second, err), Outcome{Kind: RetryLater, Reason: ReasonRateLimited, RetryAfter: time.Second, Err: err}},
		"unknown":  {Unknown(ReasonTimeout, err), Outcome{Kind: Ambiguous, Reason: ReasonTimeout, Err: err}},
	} {
		if diff := cmp.Diff(c.want, c.got, cmpopts.EquateErrors()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestFieldErrors(t *testing.T) {
	var errs FieldErrors
	if err := errs.OrNil(); err != nil {
		t.Errorf("OrNil() of nothing = %v, want nil", err)
	}
	errs.Add("cpf", "must be %d digits", 11)
	errs.Add("auditInfo.latitude", "is required")
	const want = "invalid request: cpf must be 11 digits; auditInfo.latitude is required"
	err := errs.OrNil()
	if err == nil || err.Error() != want {
		t.Errorf("OrNil() = %v, want %s", err, want)
	}
	var back FieldErrors
	if !errors.As(err, &back) || len(back) != 2 {
		t.Errorf("errors.As(%v) finds %v, want both fields", err, back)
	}
}
