package peers

import (
	"context"
	"errors"
	"fmt"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/tasks"
)

// FillHanging queues messages of the product for MedSênior, whose API hangs.
func FillHanging(ctx context.Context, cfg Config, interactive, bulk int) error {
	o, err := OpenOtpq(cfg)
	if err != nil {
		return err
	}
	defer o.Close()
	send := func(lane tasks.Lane, n int) error {
		for i := range n {
			if _, err := o.Client.Send(ctx, OtherRequest(i), enqueue.InLane(lane), enqueue.ValidFor(validity)); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.Join(send(tasks.Interactive, interactive), send(tasks.Bulk, bulk))
}

// OtherRequest is a request of MedSênior's with a number, each for somebody else.
func OtherRequest(number int) medsenior.Request {
	return medsenior.Request{EmailID: fmt.Sprint(number), CPF: fmt.Sprintf("%011d", number), PrimeiroAcesso: new(false)}
}
