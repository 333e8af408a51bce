package worker

import (
	"slices"

	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

// attemptReasons are the reasons that the outcomes of a request come with. Others
// are counted too, from the first that is seen.
var attemptReasons = map[providers.Kind][]providers.Reason{
	providers.Accepted: {providers.ReasonNone},
	providers.Rejected: {providers.ReasonInvalidRequest, providers.ReasonRecipientUnknown},
	providers.RetryLater: {
		providers.ReasonNotSent, providers.ReasonCredentials, providers.ReasonCredentialsRenewed, providers.ReasonRateLimited,
		providers.ReasonProviderError, providers.ReasonUnavailable, providers.ReasonUnexpectedStatus, providers.ReasonRedirect,
		providers.ReasonConnection,
	},
	providers.Ambiguous: {
		providers.ReasonTimeout, providers.ReasonConnectionLost, providers.ReasonUnclassified,
		providers.ReasonUnexpectedStatus, providers.ReasonRedirect,
	},
}

// ownReasons are the worker's, which come with no reply of a provider.
var ownReasons = []providers.Reason{
	ReasonDeadline, ReasonBreakerOpen, ReasonRateLimit, ReasonUndecodable, ReasonVersion, ReasonKey, ReasonSeal,
	ReasonWorkerLost, ReasonKillsWorkers, ReasonArchived, ReasonStalled, ReasonPanic, ReasonRedis, ReasonBusy,
}

// waitReasons are why a message waits though no provider said so.
var waitReasons = []providers.Reason{
	ReasonBreakerOpen, ReasonRateLimit, ReasonWorkerLost, ReasonKillsWorkers, ReasonStalled, ReasonPanic, ReasonRedis, ReasonBusy,
}

// Reasons lists all that a message can wait or end for, in the order of the alphabet.
func Reasons() []string {
	var out []string
	for _, list := range attemptReasons {
		for _, r := range list {
			if r != providers.ReasonNone {
				out = append(out, string(r))
			}
		}
	}
	for _, r := range ownReasons {
		out = append(out, string(r))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// vocabulary is what the labels of the metrics can be.
func vocabulary() metrics.Vocabulary {
	v := metrics.Vocabulary{Reasons: Reasons()}
	for _, s := range status.States() {
		if s.Terminal() && s != status.Canceled { // no worker takes part in that
			v.Ends = append(v.Ends, string(s))
		}
	}
	for kind, list := range attemptReasons {
		for _, r := range list {
			v.Attempts = append(v.Attempts, metrics.Attempt{Outcome: kind.String(), Reason: string(r)})
			if kind == providers.RetryLater || kind == providers.Ambiguous {
				v.Waits = append(v.Waits, string(r))
			}
		}
	}
	for _, r := range waitReasons {
		v.Waits = append(v.Waits, string(r))
	}
	return v
}
