package dashboard

import (
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

// reasons says each reason in words that follow "because".
var reasons = map[providers.Reason]string{
	providers.ReasonNotSent:            "the provider says that nothing was sent",
	providers.ReasonInvalidRequest:     "the provider calls the request invalid",
	providers.ReasonRecipientUnknown:   "the provider does not know this recipient",
	providers.ReasonCredentials:        "the provider refuses our credentials; look at the token",
	providers.ReasonCredentialsRenewed: "the provider refused the token, and there is a newer one by now",
	providers.ReasonRateLimited:        "the provider says that it gets too many requests (429)",
	providers.ReasonProviderError:      "the provider says that it failed",
	providers.ReasonUnavailable:        "the provider says that it is not available",
	providers.ReasonUnexpectedStatus:   "the provider answered with a status that its page does not list",
	providers.ReasonUnclassified:       "the provider's reply does not say that it took the request",
	providers.ReasonRedirect:           "the provider's address leads elsewhere, which is not followed",
	providers.ReasonConnection:         "there was no connection to the provider; nothing was sent",
	providers.ReasonConnectionLost:     "the connection broke after the request had left; the code may be on its way",
	providers.ReasonTimeout:            "no reply came in time; the code may be on its way",

	worker.ReasonDeadline:     "its deadline passed",
	worker.ReasonBreakerOpen:  "the provider's breaker was open",
	worker.ReasonRateLimit:    "the limit of requests that all workers share was full",
	worker.ReasonUndecodable:  "what was in the queue is no message",
	worker.ReasonVersion:      "it was made by a newer otpq than the workers are",
	worker.ReasonKey:          "it is sealed with a key that the workers do not have",
	worker.ReasonSeal:         "its seal does not open: it was changed, or a key has another secret here",
	worker.ReasonWorkerLost:   "the worker that had it died; the code may be on its way",
	worker.ReasonKillsWorkers: "workers died, one after the other, as they took it up",
	worker.ReasonArchived:     "somebody archived its task with asynq's tools",
	worker.ReasonStalled:      "the worker stood still before it asked the provider",
	worker.ReasonPanic:        "the code that handled it panicked",
	worker.ReasonRedis:        "Redis did not answer",
	worker.ReasonBusy:         "another worker has it in hand",

	status.ReasonMaybeSent: "an earlier attempt may have been acted on; the code may be on its way",
}

// reasonWords says a reason in words; one that it does not know stays as it is.
func reasonWords(reason string) string {
	if words, ok := reasons[providers.Reason(reason)]; ok {
		return words
	}
	return reason
}
