package faulttest

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"seenby/domain"
)

// strike does one thing to the installation.
func (w *world) strike(rnd *rand.Rand) {
	switch rnd.IntN(12) {
	case 0, 1, 2, 3:
		w.crash(rnd)
	case 4:
		w.rebalance(rnd)
	case 5, 6:
		w.breakConnection(rnd)
	case 7, 8, 9:
		w.answerWrongly(rnd)
	case 10:
		w.model.setAway(true)
		wait := between(rnd, 2*time.Second)
		time.AfterFunc(wait, func() { w.model.setAway(false) })
	case 11:
		w.mu.Lock()
		api := w.api
		w.mu.Unlock()
		if api != nil {
			w.count("api")
			api.kill()
		}
	}
}

// strikeOnce makes sure that every schedule has a crash and a rebalance.
func (w *world) strikeOnce(rnd *rand.Rand) {
	w.rebalance(rnd)
	if l := w.anyLife(rnd); l != nil {
		w.count("now")
		l.kill()
	}
}

// anyLife is a process that lives.
func (w *world) anyLife(rnd *rand.Rand) *life {
	w.mu.Lock()
	var lives []*life
	for l := range w.lives {
		if !l.killed() {
			lives = append(lives, l)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(lives, func(a, b *life) int { return cmp.Compare(a.name, b.name) })
	if len(lives) == 0 {
		return nil
	}
	return lives[rnd.IntN(len(lives))]
}

// count notes a crash or a rebalance.
func (w *world) count(place string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crashes[place]++
}

// struck is how many crashes and rebalances there were.
func (w *world) struck() (crashes, rebalances int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for place, n := range w.crashes {
		if place == placeRebalance {
			rebalances += n
		} else {
			crashes += n
		}
	}
	return crashes, rebalances
}

const placeRebalance = "rebalance"

// crash makes a process die before or after a step of its work: at its next one of a kind, or soon after.
func (w *world) crash(rnd *rand.Rand) {
	l := w.anyLife(rnd)
	if l == nil {
		return
	}
	s := &strike{skip: rnd.IntN(4), late: rnd.IntN(2) == 0}
	place := ""
	switch kind, _, _ := strings.Cut(l.name, ":"); {
	case strings.HasPrefix(kind, groupGate):
		switch rnd.IntN(7) {
		case 0:
			place = placeLookup
		default:
			s.key = pick[int16](rnd, keyFetch, keyProduce, keyProduce, keyEndTxn, keyEndTxn, keyInitProducerID, keyListOffsets)
		}
	case strings.HasPrefix(kind, groupKeeper):
		s.key = pick[int16](rnd, keyFetch, keyProduce, keyProduce, keyListOffsets)
	default:
		if rnd.IntN(3) > 0 {
			place = placeCommit
		} else {
			s.key = pick[int16](rnd, keyFetch, keyListOffsets)
		}
	}
	if place != "" {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.strikes[place] = s
		return
	}
	s.do = func() {
		w.count("request")
		l.kill()
	}
	l.data.strikeAt(s)
}

// breakConnection loses a request, or its answer, and nothing else.
func (w *world) breakConnection(rnd *rand.Rand) {
	if l := w.anyLife(rnd); l != nil {
		l.data.strikeAt(&strike{key: pick[int16](rnd, keyProduce, keyEndTxn, keyEndTxn, keyFetch, keyInitProducerID), skip: rnd.IntN(3), late: rnd.IntN(3) > 0})
	}
}

// rebalance makes a group deal its partitions anew, or cuts a member off from its group, so that it goes on with
// what others have by then.
func (w *world) rebalance(rnd *rand.Rand) {
	w.count(placeRebalance)
	if !w.groups {
		w.rosters[pick(rnd, groupGate, groupGate, groupKeeper, "impressions", "uniqueviews")].deal()
		return
	}
	if l := w.anyLife(rnd); l != nil {
		l.group.sever()
		time.AfterFunc(10*time.Second+between(rnd, 10*time.Second), l.kill)
	}
}

// answerWrongly makes Kafka fail a few requests, in the ways that it does.
func (w *world) answerWrongly(rnd *rand.Rand) {
	views, verdicts := prefix+string(domain.TopicViews), prefix+string(domain.TopicVerdicts)
	fault := func(topic string, errs []*kerr.Error, keys ...kmsg.Key) {
		w.cluster.Fault(kfake.Fault{Keys: keys, Topic: topic, Err: pick(rnd, errs...), Count: 1 + rnd.IntN(3)})
	}
	written := []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend}
	busy := []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions}
	switch rnd.IntN(8) {
	case 0:
		fault(views, written, kmsg.Produce)
	case 1:
		fault(verdicts, written, kmsg.Produce)
	case 2:
		fault(pick(rnd, views, verdicts), []*kerr.Error{kerr.NotLeaderForPartition, kerr.NotEnoughReplicas}, kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets)
	case 3:
		// Not tried again by the client: an operator has taken a right away for a moment.
		fault(verdicts, []*kerr.Error{kerr.TopicAuthorizationFailed}, kmsg.Produce)
	case 4:
		fault("", busy, kmsg.EndTxn)
	case 5:
		fault("", []*kerr.Error{kerr.TransactionalIDAuthorizationFailed, kerr.InvalidTxnState}, kmsg.EndTxn)
	case 6:
		fault("", busy[:3], kmsg.InitProducerID)
	case 7:
		fault(verdicts, []*kerr.Error{kerr.UnknownServerError}, kmsg.Fetch)
	}
}

// lastViews come when all else is quiet, and what is done about them fails once or twice. Nothing comes after them: who
// takes a failure for a success is not put right by the next batch.
func (w *world) lastViews(rnd *rand.Rand) {
	w.roll(func(rnd *rand.Rand) { w.lostCommits = 1 + rnd.IntN(3) })
	if rnd.IntN(2) == 0 {
		w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: pick(rnd, kerr.TransactionalIDAuthorizationFailed, kerr.InvalidTxnState), Count: 1 + rnd.IntN(3)})
	}
	out := make([]*reported, 12)
	for i := range out {
		out[i] = w.apps.view(rnd, w.apps.posts[0])
	}
	w.ownReport(out)
}

// killAll kills every process of a kind.
func (w *world) killAll(kind string) {
	w.mu.Lock()
	lives := make([]*life, 0, len(w.lives))
	for l := range w.lives {
		if strings.HasPrefix(l.name, kind) {
			lives = append(lives, l)
		}
	}
	w.mu.Unlock()
	for _, l := range lives {
		w.count("all")
		l.kill()
	}
}

// hold kills the processes of these kinds, and lets none of them live again until others, or none, are held.
func (w *world) hold(kinds ...string) {
	w.mu.Lock()
	w.held = kinds
	close(w.released)
	w.released = make(chan struct{})
	w.mu.Unlock()
	for _, kind := range kinds {
		w.killAll(kind)
	}
}

// waitHeld waits while a process of this name may not live.
func (w *world) waitHeld(name string) {
	for w.ctx.Err() == nil {
		w.mu.Lock()
		held := slices.ContainsFunc(w.held, func(kind string) bool { return strings.HasPrefix(name, kind) })
		released := w.released
		w.mu.Unlock()
		if !held {
			return
		}
		select {
		case <-released:
		case <-w.ctx.Done():
		}
	}
}

// end closes what never dies.
func (w *world) end() {
	w.endAPI()
	w.own.Close()
	w.ledger.rest()
	w.cluster.Close()
}
