package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"seenby/domain"
	"seenby/internal/eventlog"
)

// poison appends records that are no events, under these keys, as a foreign producer might.
func (in *installation) poison(topic domain.Topic, keys ...[]byte) {
	in.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(in.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		in.t.Fatal(err)
	}
	defer client.Close()
	records := make([]*kgo.Record, len(keys))
	for i, key := range keys {
		records[i] = &kgo.Record{Topic: in.prefix + string(topic), Partition: eventlog.PartitionOf(key, 12), Key: key, Value: []byte{0xff}}
	}
	if err := client.ProduceSync(in.t.Context(), records...).FirstErr(); err != nil {
		in.t.Fatal(err)
	}
}

// listedLetters is what `deadletters list --json` prints.
type listedLetters struct {
	Counts []struct {
		Projection      string
		Letters, Follow int64
	}
	Letters []struct {
		Letter, Key, Reason string
		Follows             bool
	}
}

// letters waits until there are n of a key.
func (in *installation) letters(key string, n int) (l listedLetters) {
	in.t.Helper()
	eventually(in.t, time.Minute, fmt.Sprintf("%d dead letters of %s", n, key), func() error {
		out := in.command("deadletters", "list", "--projection", "posts", "--key", key, "--json")
		l = listedLetters{}
		if err := json.Unmarshal([]byte(out), &l); err != nil {
			in.t.Fatalf("%v\n%s", err, out)
		}
		if len(l.Letters) != n {
			return fmt.Errorf("there are %+v", l.Letters)
		}
		return nil
	})
	return l
}

// says runs a command and wants it to end so, saying all of that.
func (in *installation) says(code int, want []string, args ...string) {
	in.t.Helper()
	got, stdout, stderr := in.try(args...)
	if got != code {
		in.t.Errorf("seenby %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	for _, text := range want {
		if !strings.Contains(stdout+stderr, text) {
			in.t.Errorf("seenby %s says nothing of %q:\n%s%s", strings.Join(args, " "), text, stdout, stderr)
		}
	}
}

// waitReasons waits until the verdicts of a post's views have had these reasons, in any order.
func (in *installation) waitReasons(post string, want map[domain.Reason]int) {
	in.t.Helper()
	eventually(in.t, time.Minute, fmt.Sprintf("the verdicts of %s to be %v", post, want), func() error {
		all, err := in.verdicts(demoTenant)
		if err != nil {
			return err
		}
		got := map[domain.Reason]int{}
		for _, v := range all {
			if v.Post == domain.PostID(post) {
				got[v.Reason]++
				if v.Reason == domain.ReasonUndecided && !v.DeadLetters {
					in.t.Fatalf("a view of %s is undecided, not for dead letters: %+v", post, v)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

type reasons = map[domain.Reason]int

const undecided, counted = domain.ReasonUndecided, domain.ReasonNone

// TestDeadLetters: a broken record holds up its own key and nothing else; views that depend on it wait; and an
// operator's commands settle all of it, while the projector runs and while it does not.
func TestDeadLetters(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,gate,projector,keeper")
	postKey := func(id string) []byte { return domain.PostKey{Tenant: demoTenant, Post: domain.PostID(id)}.Key() }
	post := func(audience string) any { return map[string]any{"author": "anna", "audience": audience} }
	publish := func(id, audience string) {
		t.Helper()
		eventually(t, time.Minute, "the post "+id, func() error {
			a, err := p.do("PUT", "/v1/posts/"+id, nil, post(audience)) // 202 where the projector has only begun to read
			if err != nil || a.status != http.StatusCreated && a.status != http.StatusOK {
				return fmt.Errorf("%d %s %w", a.status, a.body, err)
			}
			return nil
		})
	}
	publishBehind := func(id string) { // it stands in the log, and waits behind a letter
		t.Helper()
		p.must(http.StatusAccepted, "PUT", "/v1/posts/"+id, nil, post("everyone"), nil)
	}
	view := func(post, viewer string) {
		t.Helper()
		p.must(http.StatusAccepted, "POST", "/v1/views", nil, viewsBody{Views: []viewItem{{ID: uuid.NewString(), Post: post, Viewer: viewer}}}, nil)
	}
	publish("well", "everyone")
	view("well", "ben")

	// The key of one post.
	in.poison(domain.TopicPosts, postKey("sick"), postKey("never"))
	first := in.letters("demo/sick", 1).Letters[0]
	if !regexp.MustCompile(`^posts:posts/\d+@\d+$`).MatchString(first.Letter) || !strings.HasPrefix(first.Reason, "the value is no event") || first.Follows {
		t.Errorf("the letter is %+v", first)
	}
	publishBehind("sick")
	if l := in.letters("demo/sick", 2).Letters[1]; !l.Follows {
		t.Errorf("the post's event does not follow: %+v", l)
	}
	view("sick", "ben")
	view("never", "ben")
	view("well", "ben")
	in.waitReasons("well", reasons{counted: 2})
	in.waitReasons("sick", reasons{undecided: 1})
	in.waitReasons("never", reasons{undecided: 1})
	in.says(exitOK, []string{"the value is no event", "it still cannot be applied", "demo/sick", "behind it", "PostPublished"}, "deadletters", "show", first.Letter)
	in.says(exitFailed, []string{first.Letter, "the value is no event", "applied 0", "staying 2"}, "deadletters", "redrive", "--key", "demo/sick")
	in.says(exitOK, []string{"posts: 2 dead letters, 1 that follow", "demo/never"}, "deadletters", "list", "--tenant", "demo")
	in.says(exitOK, []string{"posts: none"}, "deadletters", "list", "--tenant", "other", "--projection", "posts")
	eventually(t, 30*time.Second, "the metric of parked events", func() error {
		a, err := p.do("GET", "/metrics", nil, nil)
		for _, line := range []string{`seenby_dead_letters{follows="false",projection="posts"} 2`, `seenby_dead_letters{follows="true",projection="posts"} 1`} {
			if err != nil || !strings.Contains(string(a.body), line) {
				return fmt.Errorf("no %s: %w", line, err)
			}
		}
		return nil
	})

	// Given up, it still holds its followers until they are redriven.
	in.says(exitUsage, []string{"--reason"}, "deadletters", "discard", first.Letter)
	redrive := "deadletters redrive --projection posts --key 'demo/sick'"
	in.says(exitOK, []string{"is discarded", redrive}, "deadletters", "discard", first.Letter, "--reason", "a test's record", "--by", "ann")
	in.says(exitOK, []string{"was discarded before"}, "deadletters", "discard", first.Letter, "--reason", "again", "--by", "ben")
	in.says(exitFailed, []string{"discarded by ann", "a test's record"}, "deadletters", "show", first.Letter)
	in.letters("demo/sick", 1)
	in.waitReasons("sick", reasons{undecided: 1})
	in.says(exitOK, []string{"applied 1", "staying 0"}, "deadletters", "redrive", "--projection", "posts", "--key", "demo/sick")
	in.waitReasons("sick", reasons{undecided: 1, counted: 1})
	eventually(t, time.Minute, "the view to be in the counts", func() error {
		var got postAnswer
		if status, err := p.get("/v1/posts/sick", nil, &got); err != nil || status != http.StatusOK || got.Impressions != 1 {
			return fmt.Errorf("%d %+v %w", status, got, err)
		}
		return nil
	})
	// A post that never was: the last word is a refusal.
	in.command("deadletters", "discard", in.letters("demo/never", 1).Letters[0].Letter, "--reason", "a test's record")
	in.waitReasons("never", reasons{undecided: 1, domain.ReasonUnknownPost: 1})

	in.memberLetters(publish, view)

	// While no projector runs.
	in.poison(domain.TopicPosts, postKey("late"))
	late := in.letters("demo/late", 1).Letters[0].Letter
	publishBehind("late")
	in.letters("demo/late", 2)
	p.stop()
	in.command("deadletters", "discard", late, "--reason", "a test's record")
	in.says(exitOK, []string{"applied 1", "staying 0"}, "deadletters", "redrive", "--all")
	in.says(exitOK, []string{"applied 0", "staying 0"}, "deadletters", "redrive", "--all")
	p = in.serve(key, "api,gate,projector,keeper")
	view("late", "ben")
	in.waitReasons("late", reasons{counted: 1})
	in.settle(t).check(t, 8)

	log := in.sharedLog()
	now, err := log.Installation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := now.Discarded("posts"); len(got) != 5 {
		t.Errorf("the decisions are about %v", got)
	}
}

// memberLetters: the key of one membership on audiences. Other members are judged, and the one waits.
func (in *installation) memberLetters(publish, view func(string, string)) {
	in.t.Helper()
	memberKey := func(id string) []byte {
		records, err := in.records(domain.TopicPeople)
		if err != nil {
			in.t.Fatal(err)
		}
		for _, r := range records {
			if e, ok := r.Event.(domain.PersonNamed); ok && e.ID == id {
				return domain.MemberKey(demoTenant, "friends", e.Ref.Person)
			}
		}
		in.t.Fatalf("nobody is called %s", id)
		return nil
	}
	publish("club", "audience:friends")
	publish("open", "everyone")
	for _, who := range []string{"ben", "cleo", "dora"} {
		view("open", who)
	}
	in.waitReasons("open", reasons{counted: 3})
	ben, dora := memberKey("ben"), memberKey("dora")
	in.poison(domain.TopicAudiences, ben, dora)
	key := func(member []byte) string {
		tenant, audience, person, _ := domain.ParseMemberKey(member)
		return fmt.Sprintf("%s/%s/%s", tenant, audience, person)
	}
	of := in.letters(key(ben), 1).Letters[0].Letter
	in.letters(key(dora), 1)
	log := in.sharedLog()
	tenant, audience, person, _ := domain.ParseMemberKey(ben)
	if _, err := log.Append(in.t.Context(), domain.AudienceMemberAdded{Tenant: tenant, Audience: audience, Person: person, EventID: domain.EventID(uuid.New())}); err != nil {
		in.t.Fatal(err)
	}
	in.letters(key(ben), 2)
	for _, who := range []string{"ben", "cleo", "dora"} {
		view("club", who)
	}
	in.waitReasons("club", reasons{undecided: 2, domain.ReasonNotInAudience: 1})
	in.command("deadletters", "discard", of, "--reason", "a test's record")
	in.says(exitOK, []string{"applied 1"}, "deadletters", "redrive", "--key", key(ben))
	in.waitReasons("club", reasons{undecided: 2, domain.ReasonNotInAudience: 1, counted: 1})
	in.command("deadletters", "discard", in.letters(key(dora), 1).Letters[0].Letter, "--reason", "a test's record")
	in.waitReasons("club", reasons{undecided: 2, domain.ReasonNotInAudience: 2, counted: 1})
}

// ready is what /readyz says of a dependency.
func (p *process) ready(name string) string {
	p.t.Helper()
	var ready struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if _, err := p.get("/readyz", nil, &ready); err != nil {
		p.t.Fatal(err)
	}
	return ready.Dependencies[name]
}

// TestDeadLettersLimit: past the limit the projection stands still and tells the way out; when that is taken it goes
// on, in the same process.
func TestDeadLettersLimit(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,projector")
	const most = 1000
	keys := make([][]byte, most+1)
	for i := range keys {
		keys[i] = []byte(fmt.Sprintf("demo\x00broken-%d", i))
	}
	in.poison(domain.TopicPosts, keys...)
	var partition int32
	eventually(t, time.Minute, "the projector to stand still and say so", func() error {
		says := p.ready("projector posts")
		for _, want := range []string{"has 1000 dead letters, as many as it may", "stands still before posts partition", "seenby deadletters list --projection posts"} {
			if !strings.Contains(says, want) || !strings.Contains(p.out.String(), want) {
				return fmt.Errorf("readyz says %q", says)
			}
		}
		_, at, _ := strings.Cut(says, "stands still before posts partition ")
		_, err := fmt.Sscan(at, &partition)
		return err
	})
	post := "p" // one behind the record that it stands before
	for eventlog.PartitionOf(domain.PostKey{Tenant: demoTenant, Post: domain.PostID(post)}.Key(), 12) != partition {
		post += "p"
	}
	p.must(http.StatusAccepted, "PUT", "/v1/posts/"+post, nil, map[string]any{"author": "anna"}, nil)
	var l listedLetters
	if err := json.Unmarshal([]byte(in.command("deadletters", "list", "--projection", "posts", "--limit", "2", "--json")), &l); err != nil {
		t.Fatal(err)
	}
	if l.Counts[0].Letters != most || len(l.Letters) != 2 {
		t.Errorf("listed %+v", l)
	}
	in.says(exitFailed, []string{"staying 1000"}, "deadletters", "redrive", "--projection", "posts")
	in.command("deadletters", "discard", l.Letters[0].Letter, l.Letters[1].Letter, "--reason", "a test's record")
	eventually(t, time.Minute, "the projection to go on", func() error {
		var got postAnswer
		if status, err := p.get("/v1/posts/"+post, nil, &got); err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %w, %s", status, err, p.ready("projector posts"))
		}
		if says := p.ready("projector posts"); says != "ok" {
			return fmt.Errorf("readyz says %q", says)
		}
		return nil
	})
}

// TestDataThatOnlyPostgresRefuses: the projection stops, names the offsets, and has moved nowhere.
func TestDataThatOnlyPostgresRefuses(t *testing.T) {
	in, key := install(t)
	p := in.serve(key, "api,projector")
	conn, err := pgx.Connect(t.Context(), in.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "ALTER TABLE posts_v1.posts ADD CONSTRAINT posts_of_a_test CHECK (post <> 'refused')"); err != nil {
		t.Fatal(err)
	}
	partition := eventlog.PartitionOf(domain.PostKey{Tenant: demoTenant, Post: "refused"}.Key(), 12)
	p.must(http.StatusAccepted, "PUT", "/v1/posts/refused", nil, map[string]any{"author": "anna"}, nil)
	want := fmt.Sprintf("posts partition %d offsets 0 to 0 could not be folded", partition)
	eventually(t, time.Minute, "the projector to stop and name the offsets", func() error {
		says := p.ready("projector posts")
		if !strings.Contains(says, want) || !strings.Contains(p.out.String(), want) {
			return fmt.Errorf("readyz says %q", says)
		}
		return nil
	})
	var next, letters int64
	if err := conn.QueryRow(t.Context(), "SELECT next_offset, (SELECT count(*) FROM dead_letters) FROM positions WHERE projection = 'posts' AND topic = 'posts' AND partition = $1", partition).Scan(&next, &letters); err != nil {
		t.Fatal(err)
	}
	if next != 0 || letters != 0 {
		t.Errorf("the position stands at %d, and %d letters are parked", next, letters)
	}
}
