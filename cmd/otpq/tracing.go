package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/tracing"
)

// How long a process that ends waits for a collector to take its last spans: a
// worker, and a command that somebody has typed.
const (
	workerFlush  = 2 * time.Second
	commandFlush = time.Second
)

// openTracer makes the tracer that the configuration asks for; nil when it asks for
// none. Patient ones try again when the collector is away for a moment. The
// collector is not reached for yet.
func openTracer(ctx context.Context, cfg config.Tracing, patient bool, log zerolog.Logger) (*tracing.Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil //nolint:nilnil // a nil Tracer is off
	}
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithTimeout(5*time.Second),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: patient, InitialInterval: time.Second, MaxInterval: 4 * time.Second, MaxElapsedTime: 8 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return tracing.New(tracing.Config{Exporter: exporter, SampleRatio: cfg.SampleRatio, Version: version(), Log: log}), nil
}

// closeTracer hands over what is left, for a moment.
func closeTracer(t *tracing.Tracer, bound time.Duration, log zerolog.Logger) {
	if err := t.Close(bound); err != nil {
		log.Warn().Err(err).Msg("the last traces are lost")
	}
}
