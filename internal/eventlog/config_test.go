package eventlog

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A member whose coordinator was away for long tries again soon: its partitions stand still until it does.
func TestRetriesStayClose(t *testing.T) {
	client, err := kgo.NewClient(Config{Brokers: []string{"127.0.0.1:1"}}.ClientOpts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	backoff := client.OptValue(kgo.RetryBackoffFn).(func(int) time.Duration)
	for failures := range 100 {
		if wait := backoff(failures); wait < requestRetryFirst/2 || wait > time.Second {
			t.Errorf("after %d failures it waits %v", failures, wait)
		}
	}
	if silent := client.OptValue(kgo.RequestTimeoutOverhead).(time.Duration); silent > 5*time.Second {
		t.Errorf("a broker that hangs is waited for %v", silent)
	}
}
