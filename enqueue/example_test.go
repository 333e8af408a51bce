package enqueue_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// open stands in for an app's start: one Client, kept for as long as the app
// runs. The Redis here lives in memory; an app names its own.
func open() (client *enqueue.Client, end func()) {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	client, err = enqueue.Open(enqueue.Config{
		RedisURL: "redis://" + server.Addr(),
		// From `otpq keygen`; the workers have the same.
		Keys: []tasks.Key{{ID: "2026-11", Secret: tasks.GenerateSecret()}},
	})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		_ = client.Close()
		server.Close()
	}
}

func Example() {
	client, end := open()
	defer end()

	// A person waits for this: give Redis a moment, not longer.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	receipt, err := client.Send(ctx, unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"},
		enqueue.IdempotencyKey("login 8731"),
		enqueue.ValidFor(3*time.Minute),
	)
	var unavailable *enqueue.UnavailableError
	if errors.As(err, &unavailable) {
		fmt.Println("send it again, with the same idempotency key")
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(receipt.State)
	// Output: queued
}

func ExampleClient_Send_medsenior() {
	client, end := open()
	defer end()
	receipt, err := client.Send(context.Background(), medsenior.Request{
		CelularID:      "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
		CPF:            "12345678901",
		PrimeiroAcesso: new(false), // required: false is not "not set"
	})
	fmt.Println(receipt.State, err)
	// Output: queued <nil>
}

func ExampleClient_Send_unimedbh() {
	client, end := open()
	defer end()
	receipt, err := client.Send(context.Background(), unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"})
	fmt.Println(receipt.State, err)
	// Output: queued <nil>
}

func ExampleClient_Send_kinpos() {
	client, end := open()
	defer end()
	receipt, err := client.Send(context.Background(), kinpos.Request{
		MobileNumber:        "59899000000",
		InternationalPrefix: "00598",
		ApplicationOS:       "ANDROID",
		Language:            "es",
	})
	fmt.Println(receipt.State, err)
	// Output: queued <nil>
}

func ExampleClient_SendBatch() {
	client, end := open()
	defer end()
	var items []enqueue.Item
	for i, user := range []string{"ana@example.com", "rui@example.com", "", "ana@example.com"} {
		key := fmt.Sprint("november row ", i%3) // the last row is the first again
		items = append(items, enqueue.Item{
			Request: unimedbh.Request{Username: user, Type: "EMAIL"},
			Options: []enqueue.Option{enqueue.InLane(tasks.Bulk), enqueue.IdempotencyKey(key)},
		})
	}
	results, err := client.SendBatch(context.Background(), items)
	if err != nil {
		// Some are not queued, or not known to be: send those again.
		fmt.Println(err)
	}
	for i, r := range results {
		switch {
		case r.Err != nil:
			fmt.Println(i, r.Err)
		case r.Receipt.Repeated:
			fmt.Println(i, "was queued before")
		default:
			fmt.Println(i, r.Receipt.State)
		}
	}
	// Output:
	// 0 queued
	// 1 queued
	// 2 invalid request: username is required
	// 3 was queued before
}

func ExampleClient_Send_invalid() {
	client, end := open()
	defer end()
	_, err := client.Send(context.Background(), medsenior.Request{CPF: "123.456.789-01"})
	var fields providers.FieldErrors
	if errors.As(err, &fields) {
		for _, f := range fields {
			fmt.Println(f.Field, f.Problem)
		}
	}
	// Output:
	// emailId is required unless celularId is given
	// celularId is required unless emailId is given
	// cpf must be 11 digits, without dots or hyphen
	// primeiroAcesso is required: true or false
}

func ExampleIdempotencyKey() {
	client, end := open()
	defer end()
	ctx := context.Background()
	request := unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"}
	first, err := client.Send(ctx, request, enqueue.IdempotencyKey("login 8731"))
	if err != nil {
		fmt.Println(err)
		return
	}
	// The person pressed the button twice, or the app was restarted in between.
	second, err := client.Send(ctx, request, enqueue.IdempotencyKey("login 8731"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(second.ID == first.ID, second.Repeated)
	// Output: true true
}

func ExampleAt() {
	client, end := open()
	defer end()
	_, err := client.Send(context.Background(),
		unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"},
		enqueue.At(time.Now().Add(time.Hour)), // and may be sent for 10 minutes from then
		enqueue.ValidFor(10*time.Minute),
		enqueue.InLane(tasks.Bulk), // nobody waits for it
	)
	fmt.Println(err)
	// Output: <nil>
}

func ExampleClient_Cancel() {
	client, end := open()
	defer end()
	ctx := context.Background()
	receipt, err := client.Send(ctx, unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = client.Cancel(ctx, receipt.ID)
	var refused *status.RefusedError
	if errors.As(err, &refused) {
		fmt.Println("too late: it is", refused.From)
		return
	}
	fmt.Println("canceled:", err == nil)
	// Output: canceled: true
}

func ExampleClient_Status() {
	client, end := open()
	defer end()
	ctx := context.Background()
	receipt, err := client.Send(ctx, medsenior.Request{
		EmailID: "bed1066b-d8b5-47bc-a67f-2fd70a3c442d", CPF: "12345678901", PrimeiroAcesso: new(true),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	record, err := client.Status(ctx, receipt.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(record.State, record.Recipient, record.State.Terminal())
	_, err = client.Status(ctx, "no-such-id")
	fmt.Println(errors.Is(err, status.ErrNotFound))
	// Output:
	// queued *********01 false
	// true
}
