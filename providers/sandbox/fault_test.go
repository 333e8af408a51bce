package sandbox

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseFaultReadsEveryFault(t *testing.T) {
	// Every fault with a value of its own, so that none can be set in another's place.
	const flag = "medsenior: latency=200ms, jitter=50ms,error_rate=0.1,error_status=503,error_body={},fail_next=2,hang," +
		"hang_rate=0.2,hang_for=1m,cut_rate=0.3,cut_next=5,garbage_rate=0.4,token=a=b,unauthorized_after=3,rate_limit=4,rate_limited_rate=0.5,retry_after=7s"
	want := Fault{
		Latency: Duration(200 * time.Millisecond), Jitter: Duration(50 * time.Millisecond),
		ErrorRate: 0.1, ErrorStatus: 503, ErrorBody: "{}", FailNext: 2,
		Hang: true, HangRate: 0.2, HangFor: Duration(time.Minute),
		CutRate: 0.3, CutNext: 5, GarbageRate: 0.4, Token: "a=b", UnauthorizedAfter: 3,
		RateLimit: 4, RateLimitedRate: 0.5, RetryAfter: Duration(7 * time.Second),
	}
	provider, got, err := ParseFault(flag)
	if err != nil || provider != "medsenior" {
		t.Fatalf("ParseFault() = %q, %v", provider, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseFault (-want +got):\n%s", diff)
	}
	if reflect.ValueOf(want).NumField() != len(knobs) {
		t.Errorf("there are %d faults to set and %d fields", len(knobs), reflect.ValueOf(want).NumField())
	}
	for i := range reflect.ValueOf(want).NumField() {
		f := reflect.TypeFor[Fault]().Field(i)
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Errorf("this test sets no %s", f.Name)
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != knobs[i].name {
			t.Errorf("field %s is %q in JSON, and %q to set", f.Name, name, knobs[i].name)
		}
	}

	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "a=b") {
		t.Errorf("the token is printed: %s", text)
	}
	var again Fault
	if err := json.Unmarshal([]byte(strings.Replace(string(text), "[redacted]", "a=b", 1)), &again); err != nil {
		t.Fatalf("the fault's own JSON: %v", err)
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("after JSON (-want +got):\n%s", diff)
	}
}

func TestParseFaultSaysWhatIsWrong(t *testing.T) {
	for flag, want := range map[string]string{
		"":                                "a fault is written PROVIDER:NAME=VALUE,…",
		"medsenior":                       "a fault is written PROVIDER:NAME=VALUE,…",
		"medsenior:":                      "a fault is written PROVIDER:NAME=VALUE,…",
		":latency=1s":                     "a fault is written PROVIDER:NAME=VALUE,…",
		"medsenior:latencia=1s":           `unknown fault "latencia"; the faults are latency, jitter, error_rate,`,
		"medsenior:latency=1s,":           `unknown fault ""`,
		"medsenior:latency=1":             "latency must be a duration from 0s to 1h0m0s, such as 200ms",
		"medsenior:latency=-1s":           "latency must be a duration",
		"medsenior:latency=2h":            "latency must be a duration",
		"medsenior:latency":               "latency must be a duration",
		"medsenior:error_rate=1.1":        "error_rate must be a number from 0 to 1",
		"medsenior:error_rate=NaN":        "error_rate must be a number from 0 to 1",
		"medsenior:error_rate=10%":        "error_rate must be a number from 0 to 1",
		"medsenior:error_status=200":      "error_status must be a status from 300 to 599",
		"medsenior:fail_next=-1":          "fail_next must be a whole number, 0 or more",
		"medsenior:hang=yes":              "hang must be true or false",
		"medsenior:token=":                "token must be the token itself",
		"medsenior:token=[redacted]":      "token must be the token itself",
		"medsenior:latency=1s,latency=2s": `"latency" is given twice`,
		"medsenior:jitter=x,cut_rate=x":   "cut_rate must be a number from 0 to 1\njitter must be a duration",
	} {
		if _, _, err := ParseFault(flag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFault(%q) = %v, want an error with %q", flag, err, want)
		}
	}
}

func TestFaultJSONSaysWhatIsWrongAndChangesNothing(t *testing.T) {
	for body, want := range map[string]string{
		``:                                  "a fault must be a JSON object",
		`null`:                              "a fault must be a JSON object",
		`[]`:                                "a fault must be a JSON object",
		`{"latency":200}`:                   "latency must be a duration",
		`{"latency":null}`:                  "latency must be a duration",
		`{"hang":{}}`:                       "hang must be true or false",
		`{"latencia":"1s","cut":1}`:         "unknown fault \"cut\"; the faults are latency, jitter",
		`{"Latency":"1s"}`:                  `unknown fault "Latency"`,
		`{"error_rate":2,"garbage_rate":2}`: "error_rate must be a number from 0 to 1\ngarbage_rate must be",
	} {
		f := Fault{FailNext: 1}
		if err := f.UnmarshalJSON([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", body, err, want)
		}
		if diff := cmp.Diff(Fault{FailNext: 1}, f); diff != "" {
			t.Errorf("%s changed the fault (-want +got):\n%s", body, diff)
		}
	}
}

func TestFaultValidateRefusesWhatTheParsersRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		ok    bool
	}{
		"no fault":           {Fault{}, true},
		"a token":            {Fault{Token: "x"}, true},
		"a negative latency": {Fault{Latency: -1}, false},
		"a rate past one":    {Fault{CutRate: 1.5}, false},
		"a rate that is NaN": {Fault{CutRate: math.NaN()}, false},
		"a success":          {Fault{ErrorStatus: 200}, false},
		"a token and a rate": {Fault{Token: "x", CutRate: -1}, false},
	} {
		if err := c.fault.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: Validate() = %v", name, err)
		}
	}
}

func TestFaultUsageNamesEveryFault(t *testing.T) {
	for _, k := range knobs {
		if !strings.Contains(FaultUsage(), k.name+" ") {
			t.Errorf("FaultUsage() has no %s", k.name)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("medsenior:latency=200ms,jitter=50ms,error_rate=0.1")
	f.Add("kinpos:hang,fail_next=3,error_status=503")
	f.Add("a:token=x,retry_after=1s,error_body=ñ")
	f.Fuzz(func(t *testing.T, flag string) {
		provider, fault, err := ParseFault(flag)
		if err != nil {
			if provider != "" || fault != (Fault{}) {
				t.Errorf("ParseFault(%q) = %q, %v beside its error", flag, provider, fault)
			}
			return
		}
		if err := fault.Validate(); err != nil || provider == "" {
			t.Errorf("ParseFault(%q) = %q and a fault that is invalid: %v", flag, provider, err)
		}
	})
}
