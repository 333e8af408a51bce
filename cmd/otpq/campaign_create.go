package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
)

// campaignID is as [campaign.Settings] has it. It names a file with --check, which
// asks nobody else.
var campaignID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,55}$`)

// createChoice is what `otpq campaign create` is told.
type createChoice struct {
	settings                     campaign.Settings
	validFor                     time.Duration
	quietHours, timeZone         string
	check, strict, start, detach bool
	badRows                      string
	rows                         rowsChoice
	def                          providers.Definition
}

func (a *app) campaignCreateCommand() *cobra.Command {
	var o createChoice
	cmd := &cobra.Command{
		Use:   "create ID [FILE]",
		Short: "Make a campaign of a file's rows, or of whom an outage hit",
		Long: "Make a campaign of a file's rows. FILE is CSV or JSON lines, plain or packed by gzip\n" +
			"or zstd; - is standard input. Columns that are called as the provider's fields are\n" +
			"taken as they are, and others by --map. Rows that are wrong are skipped, and so are\n" +
			"recipients that an earlier row has. Nothing is sent before it is started, unless by\n" +
			"--start.\n\n" +
			"With --from-status its rows are the messages that ended badly since --since.",
		Example: `  otpq campaign create november people.csv --provider unimedbh --map username=email --map type==EMAIL --check
  otpq campaign create outage --from-status --provider medsenior --state exhausted,expired --since 2h`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			if len(args) > 2 {
				return usagef("`%s` does not take %q", cmd.CommandPath(), args[2])
			}
			return exactArgs("ID")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noEmptyFlags(cmd); err != nil {
				return err
			}
			if err := o.read(args, cmd.Flags().Changed); err != nil {
				return err
			}
			if o.check {
				return a.checkRows(cmd.Context(), &o)
			}
			c, err := a.campaigns()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.createCampaign(cmd.Context(), c, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.settings.Provider, "provider", "", "whom the rows are for (needed)")
	o.rows.addFlags(cmd)
	f.BoolVar(&o.check, "check", false, "only say which rows are wrong; create nothing")
	f.StringVar(&o.badRows, "bad-rows", "", "write what is wrong with rows to `FILE` (default with --check: ID.bad-rows.csv)")
	f.BoolVar(&o.strict, "strict", false, "create nothing when a row is wrong")
	f.Float64Var(&o.settings.Rate, "rate", 0, "most rows in a second (default: as many as the workers take)")
	f.IntVar(&o.settings.Window, "window", 0, "most messages in the queue at once (default: what the workers take in about a second)")
	f.DurationVar(&o.validFor, "valid-for", enqueue.DefaultValidity, "how long each message may be sent, from when it is queued")
	f.StringVar(&o.quietHours, "quiet-hours", "", "feed nothing between these `TIMES` of the day, such as 21:00-08:00")
	f.StringVar(&o.timeZone, "time-zone", "", "`ZONE` of the quiet hours, such as America/Sao_Paulo")
	f.Float64Var(&o.settings.PauseAbove, "pause-above", campaign.DefaultPauseAbove, "pause when more than this share of the last results failed")
	f.BoolVar(&o.start, "start", false, "start it at once")
	addDetach(cmd, &o.detach)
	return cmd
}

// read takes the arguments and flags, and finds what is wrong with them without Redis.
func (o *createChoice) read(args []string, changed func(string) bool) error {
	o.settings.ID = args[0]
	if len(args) > 1 {
		o.rows.file = args[1]
	}
	if !campaignID.MatchString(o.settings.ID) {
		return usagef("a campaign's ID has up to 56 letters, digits, - and _, the first of them neither, not %q", o.settings.ID)
	}
	if o.settings.Provider == "" {
		return usagef("say whom the rows are for: --provider %s", strings.Join(providerNames(), "|"))
	}
	def, ok := all.ByName(o.settings.Provider)
	if !ok {
		return unknownProvider(o.settings.Provider)
	}
	o.def = def
	switch {
	case o.detach && !o.start:
		return usagef("--detach goes with --start")
	case o.check && o.rows.fromStatus:
		return usagef("--check is for files: create the campaign without --start, and look at it")
	case o.start && o.check:
		return usagef("--check creates nothing that --start could start: leave one out")
	case o.validFor <= 0 || o.validFor > enqueue.MaxValidity:
		return usagef("--valid-for must be more than 0 and at most %s, not %s", enqueue.MaxValidity, o.validFor)
	case changed("rate") && !(o.settings.Rate > 0):
		return usagef("--rate must be more than 0; leave it out for no limit")
	case changed("window") && o.settings.Window <= 0:
		return usagef("--window must be more than 0; leave it out to have it adapted")
	case !(o.settings.PauseAbove > 0 && o.settings.PauseAbove <= 1):
		return usagef("--pause-above must be more than 0 and at most 1: a share, such as 0.2")
	}
	o.settings.ValidFor = campaign.Duration(o.validFor)
	var err error
	if o.settings.QuietHours, err = parseQuietHours(o.quietHours, o.timeZone); err != nil {
		return err
	}
	return o.rows.read(def)
}

// parseQuietHours reads --quiet-hours and --time-zone.
func parseQuietHours(hours, zone string) (campaign.QuietHours, error) {
	none := campaign.QuietHours{}
	if hours == "" && zone == "" {
		return none, nil
	}
	if hours == "" {
		return none, usagef("--time-zone goes with --quiet-hours")
	}
	q := campaign.QuietHours{Zone: zone}
	var ok bool
	q.From, q.To, ok = strings.Cut(hours, "-")
	for _, t := range []string{q.From, q.To} {
		if _, err := time.Parse("15:04", t); err != nil || !ok {
			return none, usagef("--quiet-hours must be two times of the day, such as 21:00-08:00, not %q", hours)
		}
	}
	switch {
	case q.From == q.To:
		return none, usagef("--quiet-hours begin when they end: leave them out for none")
	case zone == "":
		return none, usagef("--quiet-hours need a --time-zone, such as America/Sao_Paulo")
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return none, usagef("--time-zone must be a name such as America/Sao_Paulo, not %q", zone)
	}
	return q, nil
}

func providerNames() []string {
	var names []string
	for _, def := range all.All() {
		names = append(names, def.Name)
	}
	return names
}

// checkedRows is what --check tells with --json.
type checkedRows struct {
	Rows    int64  `json:"rows"`
	Valid   int64  `json:"valid"`
	Invalid int64  `json:"invalid"`
	BadRows string `json:"bad_rows,omitempty"` // the file
}

// checkRows reads all rows, writes what is wrong with them to a file, and fails when
// something is. It creates nothing.
func (a *app) checkRows(ctx context.Context, o *createChoice) error {
	in, err := a.openRows(ctx, o, nil)
	if err != nil {
		return err
	}
	defer in.close()
	bad, err := openBadRows(o, true)
	if err != nil {
		return err
	}
	defer bad.abandon()
	reading, n := a.newReading(in), campaign.Counts{}
	for row, err := range in.source.Rows {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			reading.end()
			return rowsError(err)
		}
		n.Rows++
		if len(row.Problems) > 0 {
			n.Invalid++
			bad.Add(row.Line, row.Problems)
		}
		reading.show(n)
	}
	reading.end()
	result := checkedRows{Rows: n.Rows, Valid: n.Rows - n.Invalid, Invalid: n.Invalid}
	if result.BadRows, err = bad.commit(); err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(result)
	} else {
		_, err = fmt.Fprintf(a.out, "%s: %d right, %d wrong\n", counted(result.Rows, "row"), result.Valid, result.Invalid)
	}
	switch {
	case err != nil:
		return err
	case n.Invalid > 0:
		fmt.Fprintf(a.err, "what is wrong with each stands in %s; nothing was created, and duplicates were not looked for\n", result.BadRows)
		return errSilent
	}
	fmt.Fprintln(a.err, "nothing was created, and duplicates were not looked for: leave out --check to do both")
	return nil
}

// createCampaign makes the campaign and says what to do next.
func (a *app) createCampaign(ctx context.Context, c *openCampaigns, o *createChoice) error {
	in, err := a.openRows(ctx, o, c)
	if err != nil {
		return err
	}
	defer in.close()
	bad, err := openBadRows(o, false)
	if err != nil {
		return err
	}
	defer bad.abandon()
	reading := a.newReading(in)
	made, repeated, err := c.Create(ctx, o.settings, in.source, campaign.CreateOptions{
		Strict: o.strict, OnProgress: reading.show,
		OnInvalid: func(line int, problems []providers.FieldError) { bad.Add(line, problems) },
	})
	reading.end()
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("interrupted: nothing is sent of what was read; the same `otpq campaign create %s` begins anew", o.settings.ID)
	case err != nil && !noneIsRight(err):
		return campaignError(o.settings.ID, rowsError(err))
	}
	if !repeated {
		file, badErr := bad.commit()
		switch {
		case badErr != nil && err == nil:
			return fmt.Errorf("campaign %s was created, and is not started: %w", made.ID, badErr)
		case badErr != nil:
			fmt.Fprintln(a.err, badErr)
		case bad.any() && file != "":
			fmt.Fprintf(a.err, "what is wrong with rows stands in %s\n", file)
		}
	}
	if err != nil {
		return campaignError(o.settings.ID, err)
	}
	return a.afterCreate(ctx, c, made, repeated, o.start, o.detach)
}

// noneIsRight reports whether nothing was created because all rows are wrong.
func noneIsRight(err error) bool {
	var row *campaign.InvalidRowError
	return errors.As(err, &row) && row.All > 0
}

// afterCreate starts what was made, or says how that is done.
func (a *app) afterCreate(ctx context.Context, c *openCampaigns, made campaign.Campaign, repeated, start, detach bool) error {
	if repeated {
		fmt.Fprintf(a.err, "campaign %s was made before, of the same rows: nothing was added\n", made.ID)
	}
	if a.json {
		switch {
		case start && detach:
			return a.startDetached(ctx, c.control(), made.ID) // prints it, later
		case start:
			return a.startCampaign(ctx, c, made.ID)
		}
		return a.printJSON(made)
	}
	n := made.Counts
	_, err := fmt.Fprintf(a.out, "%s %s: %s, %d invalid, %d duplicate, %d waiting\n", made.ID, made.State, counted(n.Rows, "row"), n.Invalid, n.Duplicate, n.Waiting)
	switch {
	case err != nil:
		return err
	case start && detach:
		return a.startDetached(ctx, c.control(), made.ID)
	case start:
		return a.startCampaign(ctx, c, made.ID)
	case made.State == campaign.Created:
		fmt.Fprintf(a.err, "next: `otpq campaign start %s` feeds it from here, with --detach a worker does\n", made.ID)
	}
	return nil
}

// badRowsFile takes what is wrong with rows.
type badRowsFile struct {
	*rows.BadRows
	file *newFile
}

// openBadRows begins the file that the flags name. Only --check has one without a flag.
// It replaces an older one: who mends rows checks them again and again.
func openBadRows(o *createChoice, check bool) (*badRowsFile, error) {
	path := o.badRows
	if path == "" && check {
		path = o.settings.ID + ".bad-rows.csv"
	}
	if path == "" {
		return &badRowsFile{}, nil
	}
	if sameFile(path, o.rows.file) {
		return nil, usagef("--bad-rows must not be the file that is read")
	}
	f, err := createFile(path, true)
	switch {
	case err != nil && o.badRows == "":
		return nil, usagef("%w; --bad-rows names another file", err)
	case err != nil:
		return nil, err
	}
	return &badRowsFile{rows.NewBadRows(f), f}, nil
}

// Add takes a row's problems.
func (b *badRowsFile) Add(line int, problems []providers.FieldError) {
	if b.BadRows != nil {
		b.BadRows.Add(line, problems)
	}
}

// any reports whether a row was added.
func (b *badRowsFile) any() bool { return b.BadRows != nil && b.Rows() > 0 }

// commit leaves the file under its name, and returns that. Where nothing is wrong and
// there is no older file that says otherwise, it leaves none.
func (b *badRowsFile) commit() (string, error) {
	if b.file == nil {
		return "", nil
	}
	if _, err := os.Stat(b.file.path); err != nil && b.Rows() == 0 {
		return "", nil
	}
	if err := b.Flush(); err != nil {
		return "", fmt.Errorf("write the bad rows: %w", err)
	}
	return b.file.path, b.file.commit()
}

func (b *badRowsFile) abandon() {
	if b.file != nil {
		b.file.abandon()
	}
}
