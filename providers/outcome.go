package providers

import (
	"fmt"
	"time"
)

// Kind says what is known of a request after it was made.
type Kind int

const (
	// Ambiguous means the vendor may or may not have acted. It is the zero
	// Kind: a provider that forgets to classify a reply says "don't know",
	// never "sent" and never "safe to send again".
	Ambiguous Kind = iota
	// Accepted means the vendor took it; a phone may not have it yet.
	Accepted
	// Rejected means the vendor refused this request and always will.
	Rejected
	// RetryLater means the vendor did not act; a later attempt may succeed.
	RetryLater
)

// String returns the kind as records, logs and metrics name it.
func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case RetryLater:
		return "retry_later"
	case Ambiguous:
		return "ambiguous"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Reason is a word from a closed vocabulary: safe in metrics, Redis and logs.
type Reason string

// What a vendor, or the way to it, can say. The worker adds its own reasons.
const (
	// ReasonNone is the reason of an accepted request.
	ReasonNone Reason = ""
	// ReasonNotSent: a well-formed reply says that nothing was sent.
	ReasonNotSent Reason = "not_sent"
	// ReasonInvalidRequest: the vendor calls the request itself invalid.
	ReasonInvalidRequest Reason = "invalid_request"
	// ReasonRecipientUnknown: the vendor does not know this recipient.
	ReasonRecipientUnknown Reason = "recipient_unknown"
	// ReasonCredentials: the vendor refuses our credentials, not the message.
	ReasonCredentials Reason = "credentials"
	// ReasonCredentialsRenewed: the vendor refused the token, and by then a
	// newer one was on disk: the next attempt uses it.
	ReasonCredentialsRenewed Reason = "credentials_renewed"
	// ReasonRateLimited: the vendor answered 429.
	ReasonRateLimited Reason = "rate_limited"
	// ReasonProviderError: the vendor says it failed (500).
	ReasonProviderError Reason = "provider_error"
	// ReasonUnavailable: the vendor says it is not available (503).
	ReasonUnavailable Reason = "provider_unavailable"
	// ReasonUnexpectedStatus: a status that the vendor's page does not list.
	ReasonUnexpectedStatus Reason = "unexpected_status"
	// ReasonUnclassified: a reply that does not positively say success.
	ReasonUnclassified Reason = "unclassified_reply"
	// ReasonRedirect: a redirect, which is never followed.
	ReasonRedirect Reason = "redirect"
	// ReasonConnection: the request never left this process.
	ReasonConnection Reason = "connection"
	// ReasonConnectionLost: the request left, and no whole reply came back.
	ReasonConnectionLost Reason = "connection_lost"
	// ReasonTimeout: the request left, and no reply came in time.
	ReasonTimeout Reason = "timeout"
)

// Outcome is the result of a Send.
type Outcome struct {
	Kind       Kind
	Reason     Reason        // closed vocabulary: safe in metrics, Redis and logs
	Reference  string        // the vendor's own id, when it gave one
	ExpiresIn  time.Duration // how long the code lives, when the vendor says
	RetryAfter time.Duration // the vendor's hint; zero when it gave none
	HTTPStatus int           // of the reply; zero when there was none
	Err        error         // detail for the log, already redacted; never stored
}

// AcceptedFor is the outcome of a request the vendor took. validity is how long
// the code lives; zero when the vendor does not say.
func AcceptedFor(validity time.Duration) Outcome {
	return Outcome{Kind: Accepted, ExpiresIn: validity}
}

// Reject is the outcome of a request the vendor refused for good.
func Reject(reason Reason, err error) Outcome {
	return Outcome{Kind: Rejected, Reason: reason, Err: err}
}

// Retry is the outcome of a request the vendor is known not to have acted on.
// after is the vendor's own hint; zero when it gave none.
func Retry(reason Reason, after time.Duration, err error) Outcome {
	return Outcome{Kind: RetryLater, Reason: reason, RetryAfter: after, Err: err}
}

// Unknown is the outcome of a request the vendor may have acted on.
func Unknown(reason Reason, err error) Outcome {
	return Outcome{Kind: Ambiguous, Reason: reason, Err: err}
}
