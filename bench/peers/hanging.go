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
			r := medsenior.Request{EmailID: fmt.Sprintf("%d", i), CPF: "12345678901", PrimeiroAcesso: new(false)}
			if _, err := o.Client.Send(ctx, r, enqueue.InLane(lane), enqueue.ValidFor(validity)); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.Join(send(tasks.Interactive, interactive), send(tasks.Bulk, bulk))
}
