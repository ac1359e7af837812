package main

import (
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"seenby/domain"
)

// postsAwayFor is how long BenchmarkPostsAway does without the projection of posts.
const postsAwayFor = 10 * time.Minute

// BenchmarkPostsAway stops the projection of posts for ten minutes under load. It tells how long views of posts that are
// projected wait for their verdict, before and meanwhile, and how long those of new posts wait once it is back. It fails
// where a view is refused, and where verify finds a difference.
func BenchmarkPostsAway(b *testing.B) {
	for b.Loop() {
		in, key := install(b)
		log, store, closeBoth := in.open(b)
		makeTenants(b, log)
		fill(b, log, steadyPosts, func(i int, _ *mathrand.Rand) domain.Event { return openPost(other, benchPost(i)) })
		projector := func(names string) *process {
			addr := freeAddr(b)
			return start(b, addr, key, in.environ, "serve", "--roles", "projector", "--projections", names, "--allow-undurable", "--http-addr", addr)
		}
		rest, counts, posts := in.serve(key, "api,gate,keeper"), projector("impressions,uniqueviews,people"), projector("posts")
		awaitDrained(b, log, store, domain.TopicPosts, "posts")

		w := newWatch(b, log)
		w.steady(quietFor) // warm
		quiet := w.steady(quietFor)
		posts.stop()
		var away []time.Duration
		for end := time.Now().Add(postsAwayFor); time.Now().Before(end); {
			w.publish(b)
			away = append(away, w.steady(time.Second)...)
		}
		back := time.Now()
		posts = projector("posts")
		w.await(w.fresh)
		b.ReportMetric(time.Since(back).Seconds(), "new-posts-settled-s")
		b.ReportMetric(float64(len(w.fresh)), "new-posts")
		for name, took := range map[string][]time.Duration{"quiet": quiet, "away": away} {
			for _, p := range []int{50, 99, 100} {
				b.ReportMetric(percentile(took, p), fmt.Sprintf("p%d-%s-ms", p, name))
			}
		}
		w.stop()
		if w.refused > 0 {
			b.Errorf("%d views are refused", w.refused)
		}
		awaitDrained(b, log, store, domain.TopicViews, "impressions", "uniqueviews")
		b.Log(in.command("verify", "--tenant", string(other)))
		posts.stop()
		counts.stop()
		rest.stop()
		closeBoth()
	}
}
