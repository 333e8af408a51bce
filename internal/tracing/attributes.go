package tracing

import "go.opentelemetry.io/otel/attribute"

// These are all the attributes that a span of ours has. Where OpenTelemetry's
// conventions for messaging and HTTP have a name it is theirs; none is ever about
// a person, and none holds the text of an error or of a provider.
const (
	messagingSystem    = attribute.Key("messaging.system")
	messagingOperation = attribute.Key("messaging.operation.name")
	messagingType      = attribute.Key("messaging.operation.type")
	destination        = attribute.Key("messaging.destination.name")
	messageID          = attribute.Key("messaging.message.id")
	errorType          = attribute.Key("error.type")
	httpStatus         = attribute.Key("http.response.status_code")
	peer               = attribute.Key("peer.service")

	provider  = attribute.Key("otpq.provider")
	lane      = attribute.Key("otpq.lane")
	state     = attribute.Key("otpq.state")
	number    = attribute.Key("otpq.attempt")
	outcome   = attribute.Key("otpq.outcome")
	reason    = attribute.Key("otpq.reason")
	campaign  = attribute.Key("otpq.campaign")
	replayOf  = attribute.Key("otpq.replay_of")
	duplicate = attribute.Key("otpq.possible_duplicate")
)

// Attributes lists the names of all attributes that a span of ours may have.
func Attributes() []string {
	return []string{
		string(messagingSystem), string(messagingOperation), string(messagingType), string(destination), string(messageID),
		string(errorType), string(httpStatus), string(peer),
		string(provider), string(lane), string(state), string(number), string(outcome), string(reason), string(campaign),
		string(replayOf), string(duplicate),
	}
}

// about is what every span of a message tells of it.
func about(name, kind, toProvider, inLane, queue string) []attribute.KeyValue {
	const most = 16 // attributes of a span
	return append(make([]attribute.KeyValue, 0, most),
		messagingSystem.String("asynq"), messagingOperation.String(name), messagingType.String(kind),
		destination.String(queue), provider.String(toProvider), lane.String(inLane))
}
