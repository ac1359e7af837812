package gate

import (
	"errors"
	"time"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// Config is what a gate is told. The zero value of every field but Kafka means its default.
type Config struct {
	Kafka eventlog.Config

	// BatchViewsMax is how many views one transaction judges at most. Default 5,000: bigger ones gain nothing.
	BatchViewsMax int
	// GatherFor is how long a batch that is not full waits for more views after its first. Default 25 ms: a
	// transaction costs 3 to 4 ms, so at low rates this is what keeps the gate from doing nothing else.
	GatherFor time.Duration
	// NegativeWait is how long a batch waits for the posts projection to pass what makes a negative answer
	// final. Default 200 ms.
	NegativeWait time.Duration
	// AnswersMax bounds the caches of positive answers, in posts and in members of audiences. Default 100,000 of
	// each, about 25 MB.
	AnswersMax int
	// TransactionTimeout is after how long Kafka aborts a transaction whose gate is gone. Default 6 s: until
	// then every reader of the partition stands still.
	TransactionTimeout time.Duration
}

// Defaults and bounds.
const (
	batchViewsDefault       = 5000
	batchViewsMax           = 100_000
	gatherForDefault        = 25 * time.Millisecond
	gatherForMax            = time.Second
	negativeWaitDefault     = 200 * time.Millisecond
	negativeWaitMax         = time.Second // a positive answer may be 2 s behind; its cache and this wait share them
	answersDefault          = 100_000
	answersMax              = 10_000_000
	transactionDefault      = 6 * time.Second
	transactionTimeoutLeast = time.Second
	transactionTimeoutMost  = time.Minute

	// answersKept is how long a positive answer is used again without a look-up.
	answersKept = time.Second
	// negativeStep is how often a batch that waits looks up again.
	negativeStep = 10 * time.Millisecond
	// lagWorthWaiting is how many events behind a projection can be and still arrive within NegativeWait.
	lagWorthWaiting = 5000
	// pauseFirst to pauseMost is how often a failed look-up is tried again.
	pauseFirst = 100 * time.Millisecond
	pauseMost  = 2 * time.Second
	// retryFirst to retryMost is how long a partition waits before it is opened anew after an error. While brokers
	// change places it fails a few times, and then its views wait for nothing but this.
	retryFirst = 100 * time.Millisecond
	retryMost  = time.Second
	// retryFenced is longer: the partition most likely belongs to another gate, and the group will say so.
	retryFenced = 5 * time.Second
	// commitEvery is how often group offsets are written for lag tools.
	commitEvery = time.Second
	// fetchWait is how long a broker may keep a fetch that finds nothing. One that hangs is noticed after it, and the
	// default of 5 s would add to every wait for another leader.
	fetchWait = time.Second
	// askTimeout bounds one question to Kafka.
	askTimeout = 10 * time.Second
	// openTimeout bounds the wait for a predecessor's transaction to be completed. It is longer than a leader
	// election, for which the marker of that transaction may have to wait.
	openTimeout = 60 * time.Second
	// restoreStall is how long a restore waits for the next record: an open transaction of a stranger on the
	// topic verdicts would hold it for ever.
	restoreStall = 30 * time.Second
	// clockAheadMax is how far Kafka's clock may be ahead before the log says so. A view may be as far ahead.
	clockAheadMax = 10 * time.Minute
	// detailBytesMax bounds what a malformed verdict says.
	detailBytesMax = 200
)

func (c Config) withDefaults() Config {
	or := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if c.BatchViewsMax == 0 {
		c.BatchViewsMax = batchViewsDefault
	}
	if c.AnswersMax == 0 {
		c.AnswersMax = answersDefault
	}
	or(&c.GatherFor, gatherForDefault)
	or(&c.NegativeWait, negativeWaitDefault)
	or(&c.TransactionTimeout, transactionDefault)
	return c
}

// Validate reports every problem, each a CodeInvalid error that names its field.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	check := func(ok bool, field, format string, args ...any) {
		if !ok {
			problems = append(problems, domain.Invalid(field, format, args...))
		}
	}
	check(len(c.Kafka.Brokers) > 0, "brokers", "are required")
	check(c.BatchViewsMax >= 1 && c.BatchViewsMax <= batchViewsMax, "batch_views_max", "must be 1 to %d", batchViewsMax)
	check(c.GatherFor >= 0 && c.GatherFor <= gatherForMax, "gather_for", "must be at most %v", gatherForMax)
	check(c.NegativeWait >= 0 && c.NegativeWait <= negativeWaitMax, "negative_wait", "must be at most %v", negativeWaitMax)
	check(c.AnswersMax >= 1 && c.AnswersMax <= answersMax, "answers_max", "must be 1 to %d", answersMax)
	check(c.TransactionTimeout >= transactionTimeoutLeast && c.TransactionTimeout <= transactionTimeoutMost,
		"transaction_timeout", "must be %v to %v", transactionTimeoutLeast, transactionTimeoutMost)
	return errors.Join(problems...)
}
