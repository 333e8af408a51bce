package vendorhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/providers"
)

// longestWait bounds a vendor's Retry-After. Codes live for minutes: an hour is
// as good as never, and a wrong clock or a stray digit must not mean a year.
const longestWait = time.Hour

// Reply is what the vendor answered.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte // nil when it arrived cut off or was too large

	broken    error // why the body could not be read to its end
	tooLarge  bool
	usesToken bool
}

// judge keeps classify from a success that did not arrive whole.
func (r Reply) judge(ctx context.Context, classify func(Reply) providers.Outcome) providers.Outcome {
	if r.Status/100 == 2 {
		switch {
		case r.broken != nil && ctx.Err() != nil:
			return providers.Unknown(providers.ReasonTimeout, describe("the reply did not end in time", ctx.Err()))
		case r.broken != nil:
			return providers.Unknown(providers.ReasonConnectionLost, describe("the reply was cut off", r.broken))
		case r.tooLarge:
			return providers.Unknown(providers.ReasonUnclassified, fmt.Errorf("the reply is larger than %d bytes", maxReply))
		}
	}
	return classify(r)
}

// Undocumented is the outcome of a reply that the vendor's page says nothing of.
//
//	2xx                 ambiguous    unclassified_reply
//	401, 403            retry later  credentials where there are any, else unexpected_status
//	429                 retry later  rate_limited, after Retry-After
//	other 4xx           retry later  unexpected_status: mostly a wrong base URL
//	500                 retry later  provider_error: the vendor's own word
//	503                 retry later  provider_unavailable, after Retry-After
//	other 5xx           ambiguous    unexpected_status: a gateway cannot know
//	307, 308            retry later  redirect: the request is to be made elsewhere
//	other 3xx           ambiguous    redirect: also what follows a form that was taken
//	anything else       ambiguous    unexpected_status
func (r Reply) Undocumented() providers.Outcome {
	err := fmt.Errorf("the vendor answered %d", r.Status)
	switch r.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		if r.usesToken {
			return providers.Retry(providers.ReasonCredentials, 0, err)
		}
	case http.StatusTooManyRequests:
		return providers.Retry(providers.ReasonRateLimited, r.retryAfter(), err)
	case http.StatusInternalServerError:
		return providers.Retry(providers.ReasonProviderError, 0, err)
	case http.StatusServiceUnavailable:
		return providers.Retry(providers.ReasonUnavailable, r.retryAfter(), err)
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return providers.Retry(providers.ReasonRedirect, 0, err)
	}
	switch r.Status / 100 {
	case 2:
		return providers.Unknown(providers.ReasonUnclassified, errors.New("the reply does not say that a code was sent"))
	case 3:
		return providers.Unknown(providers.ReasonRedirect, err)
	case 4:
		return providers.Retry(providers.ReasonUnexpectedStatus, 0, err)
	}
	return providers.Unknown(providers.ReasonUnexpectedStatus, err)
}

// Refused is the outcome of a reply in which the vendor calls the request wrong.
func (r Reply) Refused(reason providers.Reason) providers.Outcome {
	return providers.Reject(reason, fmt.Errorf("the vendor answered %d", r.Status))
}

var htmlStart = regexp.MustCompile(`(?i)^\s*(<!doctype\s+html|<html|<head|<body|<center)`)

// IsHTML reports whether the reply is a page for people. No vendor answers with
// one: it comes from a gateway or from a host that is not the vendor's.
func (r Reply) IsHTML() bool {
	return strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "text/html") || htmlStart.Match(r.Body)
}

func (r Reply) retryAfter() time.Duration {
	return parseRetryAfter(r.Header.Get("Retry-After"), time.Now())
}

// parseRetryAfter reads a Retry-After header, in seconds or as a date. It is zero
// when there is none or it makes no sense, and never longer than longestWait.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	var wait time.Duration
	if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	} else if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		wait = time.Duration(min(seconds, uint64(longestWait/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		wait = longestWait
	}
	return max(0, min(wait, longestWait))
}
