package worker

import "github.com/otpq/otpq/providers"

// The worker's own reasons, beside those of the providers: why a message waits
// or ended though no provider said so.
const (
	// ReasonDeadline: not_after passed before the provider took it.
	ReasonDeadline providers.Reason = "deadline"
	// ReasonBreakerOpen: the provider's breaker is open.
	ReasonBreakerOpen providers.Reason = "breaker_open"
	// ReasonRateLimit: our own limit for the provider is full.
	ReasonRateLimit providers.Reason = "rate_limit"
	// ReasonUndecodable: the payload is not a message.
	ReasonUndecodable providers.Reason = "undecodable"
	// ReasonVersion: the message was made by a newer otpq.
	ReasonVersion providers.Reason = "unknown_version"
	// ReasonKey: the message is sealed with a key that this worker lacks.
	ReasonKey providers.Reason = "unknown_key"
	// ReasonSeal: the seal does not open: the payload was changed, or the key has
	// another secret here.
	ReasonSeal providers.Reason = "seal_broken"
	// ReasonWorkerLost: the worker died with the attempt in hand.
	ReasonWorkerLost providers.Reason = "worker_lost"
	// ReasonKillsWorkers: workers died, one after the other, as they took it up.
	ReasonKillsWorkers providers.Reason = "kills_workers"
	// ReasonArchived: somebody archived its task with asynq's tools.
	ReasonArchived providers.Reason = "archived"
	// ReasonStalled: the process stood still between claim and request.
	ReasonStalled providers.Reason = "worker_stalled"
	// ReasonPanic: the code that handled the message panicked.
	ReasonPanic providers.Reason = "panic"
	// ReasonRedis: Redis did not answer.
	ReasonRedis providers.Reason = "redis_unavailable"
	// ReasonBusy: another execution has the message in hand.
	ReasonBusy providers.Reason = "busy"
)
