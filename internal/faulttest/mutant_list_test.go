package faulttest

// mutant is a bug that somebody could make: the lines of the source that it replaces, and why they matter.
type mutant struct {
	name  string
	why   string
	edits []edit
}

// edit replaces text that stands exactly once in a file, by its path in the repository.
type edit struct{ file, old, new string }

func one(name, why, file, old, replacement string) mutant {
	return mutant{name, why, []edit{{file, old, replacement}}}
}

// mutants are all of them. Each must be caught by TestSchedules.
var mutants = []mutant{
	one("position-not-compared",
		"Whoever lost a partition writes on from where it stood: its rows are added to those of the new owner.",
		"projections/positions.go",
		`	if !match || n != len(moves) {`,
		`	if n != len(moves) {`),
	one("position-before-rows",
		"The position is moved in a transaction of its own, before the rows: what dies in between is never folded.",
		"internal/projector/projector.go",
		`		done, err = projections.Write(ctx, tx, p.model, work)
		return err
	})`,
		`		_, err = projections.Advance(ctx, tx, p.model, work.Moves)
		return err
	})
	if err == nil {
		rows := work
		rows.Moves = nil
		err = p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) (err error) {
			done, err = projections.Write(ctx, tx, p.model, rows)
			return err
		})
	}`),
	one("rows-before-position",
		"The rows are committed in a transaction of their own, before the position: what dies in between is folded twice.",
		"internal/projector/projector.go",
		`		done, err = projections.Write(ctx, tx, p.model, work)
		return err
	})`,
		`		rows := work
		rows.Moves = nil
		done, err = projections.Write(ctx, tx, p.model, rows)
		return err
	})
	if err == nil {
		err = p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			ok, err := projections.Advance(ctx, tx, p.model, work.Moves)
			if err == nil && !ok {
				err = projections.ErrMoved
			}
			return err
		})
	}`),
	one("positions-not-read-again",
		"After an error the projector believes to know where it stands: a batch that was rolled back is passed over.",
		"internal/projector/projector.go",
		`			p.unsure = true
			p.retry(ctx, err)`,
		`			p.retry(ctx, err)`),
	one("lost-commit-taken-for-success",
		"The answer to COMMIT is lost, and the projector goes on as if it had been good.",
		"internal/projector/projector.go",
		`	if err != nil {
		if domain.CodeOf(err) == domain.CodeInternal {
			return domain.Errorf(domain.CodeInternal, "%s could not be folded", spans(work)).Because(err)
		}`,
		`	if domain.CodeOf(err) == domain.CodeUnavailable {
		err = nil
	}
	if err != nil {
		if domain.CodeOf(err) == domain.CodeInternal {
			return domain.Errorf(domain.CodeInternal, "%s could not be folded", spans(work)).Because(err)
		}`),
	{"letter-outside-the-transaction",
		"A dead letter is parked after the position has moved: what dies in between is neither folded nor parked.",
		[]edit{
			{"projections/batch.go",
				`		if err := park(ctx, tx, m, letters, w.ParkedAt); err != nil {
			return Done{}, err
		}`,
				``},
			{"projections/batch.go",
				`// sift parts the records`,
				`// Park writes letters alone.
func Park(ctx context.Context, tx Tx, p Projection, w Work, letters []DeadLetter) error {
	return park(ctx, tx, m, letters, w.ParkedAt)
}

// sift parts the records`},
			{"internal/projector/projector.go",
				`		done, err = projections.Write(ctx, tx, p.model, work)
		return err
	})`,
				`		done, err = projections.Write(ctx, tx, p.model, work)
		return err
	})
	if err == nil && len(done.Parked) > 0 {
		err = p.store.InTx(ctx, func(ctx context.Context, tx projections.Tx) error {
			return projections.Park(ctx, tx, p.model, work, done.Parked)
		})
	}`},
		}},
	one("repeats-folded",
		"A verdict whose view was folded before is folded again.",
		"projections/batch.go",
		`			if v.ViewOffset < m.ViewNextOffset {
				continue
			}
`, ``),
	one("projector-reads-uncommitted",
		"What a gate wrote and never committed is folded.",
		"internal/eventlog/reader.go",
		`kgo.FetchIsolationLevel(kgo.ReadCommitted())`,
		`kgo.FetchIsolationLevel(kgo.ReadUncommitted())`),
	one("gate-reads-uncommitted",
		"What a predecessor wrote and never committed is taken for judged: those views never get a verdict.",
		"internal/gate/restore.go",
		`kgo.FetchIsolationLevel(kgo.ReadCommitted())`,
		`kgo.FetchIsolationLevel(kgo.ReadUncommitted())`),
	one("memory-not-restored",
		"A gate opens with an empty memory: what its predecessor counted counts again.",
		"internal/gate/restore.go",
		`		s.memory.Remember(v, r.Timestamp)
`, ``),
	one("memory-restored-from-half-a-window",
		"A gate restores too little: ids in the older half of the window count again.",
		"internal/gate/restore.go",
		`last.Timestamp.Add(-s.windows.duplicates)`,
		`last.Timestamp.Add(-s.windows.duplicates/2)`),
	one("quota-not-restored",
		"A gate opens with every quota whole.",
		"internal/gate/decode.go",
		`			if us != 0 {`,
		`			if us < 0 {`),
	one("restored-before-fenced",
		"The log is read before the predecessor is fenced: what it commits in between is unknown, and judged twice.",
		"internal/gate/open.go",
		`	if _, _, err := s.client.ProducerID(fence); err != nil {
		return 0, unavailable("take over the transactional id", err)
	}
	if verdicts, err = s.restore(ctx); err != nil {
		return verdicts, err
	}
	return verdicts, s.startAt(ctx)`,
		`	if verdicts, err = s.restore(ctx); err != nil {
		return verdicts, err
	}
	if _, _, err := s.client.ProducerID(fence); err != nil {
		return 0, unavailable("take over the transactional id", err)
	}
	return verdicts, s.startAt(ctx)`),
	one("aborted-batch-remembered",
		"A batch whose writing failed stays in memory, and its views are duplicates when it is tried again.",
		"internal/gate/batch.go",
		`	if err := s.commit(ctx, verdicts); err != nil {
		return err
	}
	overlay.Commit()
	s.next = records[len(records)-1].Offset + 1
	return nil`,
		`	overlay.Commit()
	err = s.commit(ctx, verdicts)
	if err != nil && !fenced(err) {
		if s.client.AbortBufferedRecords(ctx) == nil && s.client.EndTransaction(ctx, kgo.TryAbort) == nil {
			overlay = s.memory.Begin()
			for i, v := range b.views {
				verdicts[i].verdict = overlay.Judge(v, answers[i], b.limits[v.View.Viewer.Tenant])
			}
			err = s.commit(ctx, verdicts)
		}
	}
	if err != nil {
		return err
	}
	s.next = records[len(records)-1].Offset + 1
	return nil`),
	one("failed-commit-taken-for-success",
		"Kafka refuses a commit, and the gate goes on as if it had been good.",
		"internal/gate/transaction.go",
		`	if err := s.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return unavailable("commit verdicts", err)
	}`,
		`	if err := s.client.EndTransaction(ctx, kgo.TryCommit); fenced(err) {
		return unavailable("commit verdicts", err)
	}`),
	one("verdict-in-another-partition",
		"A verdict does not stand in the partition of its view.",
		"internal/gate/transaction.go",
		`kafka.NewRecord(v.verdict, s.w.part.Partition, v.at)`,
		`kafka.NewRecord(v.verdict, s.w.part.Partition&^1, v.at)`),
	one("views-read-again",
		"A gate opens one view too early: the last one that was judged gets a second verdict.",
		"internal/gate/restore.go",
		`		s.next, s.epoch = v.ViewOffset+1, v.ViewEpoch`,
		`		s.next, s.epoch = v.ViewOffset, v.ViewEpoch`),
	one("window-too-short",
		"An id that is exactly as old as the window is forgotten.",
		"domain/memory.go",
		`	return o.memory.ids.count(id, o.now, window, 1) > 0`,
		`	return o.memory.ids.count(id, o.now, window-time.Millisecond, 1) > 0`),
	one("window-too-long",
		"An id is remembered for an instant longer than the window.",
		"domain/memory.go",
		`	return o.memory.ids.count(id, o.now, window, 1) > 0`,
		`	return o.memory.ids.count(id, o.now, window+time.Millisecond, 1) > 0`),
	{"log-end-asked-before-the-poll",
		"A negative is final once the projection has passed an end that was asked too early: a post that came in between is refused as unknown.",
		[]edit{
			{"internal/gate/open.go",
				`	memory  *domain.Memory
`,
				`	memory  *domain.Memory
	early   map[domain.Topic][]domain.Position
`},
			{"internal/gate/batch.go",
				`	records, err := s.poll(ctx)
	if err != nil || len(records) == 0 {`,
				`	s.early = map[domain.Topic][]domain.Position{}
	for _, topic := range []domain.Topic{domain.TopicPosts, domain.TopicAudiences} {
		s.early[topic], _ = s.w.g.deps.Ends.Ends(ctx, topic)
	}
	records, err := s.poll(ctx)
	if err != nil || len(records) == 0 {`},
			{"internal/gate/answers.go",
				`if all, err = s.w.g.deps.Ends.Ends(ctx, topic); err != nil {
				return domain.Position{}, err
			}`,
				`if all = s.early[topic]; len(all) == 0 {
				return domain.Position{}, domain.Errorf(domain.CodeUnavailable, "the ends are not known: %v", err)
			}`},
		}},
	one("negatives-final-at-once",
		"A negative of the read model is taken for the last word, however far that is behind.",
		"internal/gate/answers.go",
		`	post.Final = !post.DeadLetters && !slices.ContainsFunc(waits, func(p domain.Position) bool { return !a.at.Passed(p) })`,
		`	post.Final = !post.DeadLetters`),
	{"negatives-cached",
		"That a post is not there is kept as an answer, as if it were a positive one.",
		[]edit{
			{"internal/gate/answers.go",
				`		if post.Known {
			g.cache.Set(asked.Post, post)
		}`,
				`		post.Final = true
		g.cache.Set(asked.Post, post)`},
			{"internal/gate/answers.go",
				`	return post, positive(v, post)
}`,
				`	return post, positive(v, post) || !post.Known
}`},
		}},
	one("positives-cached-for-ever",
		"A post that was deleted goes on counting.",
		"internal/gate/config.go",
		`	answersKept = time.Second`,
		`	answersKept = 24 * time.Hour`),
	one("keeper-appends-without-proof",
		"What the read model has settled is appended though somebody else may have done so long ago: past the window it counts twice.",
		"internal/keeper/ledger.go",
		`	return l.proof.end > 0 && l.judged >= l.proof.end-1 && now.Sub(l.proof.asked) < proofFor`,
		`	return now.Sub(l.proof.asked) > 0`),
	one("keeper-forgets-what-waits",
		"The hint where to start reading passes over views that still wait: after a crash nobody brings them to their end.",
		"internal/keeper/ledger.go",
		`		if !p.resolved {
			return p.offset
		}
	}
	if l.passed >= 0 {`,
		`		if !p.resolved {
			break
		}
	}
	if l.passed >= 0 {`),
	one("readmitted-judged-stale",
		"A view that had to wait is refused for having waited.",
		"domain/judge.go",
		`	if v.Readmits == nil {
		if !v.Imported && v.ViewedAt.Before(o.now.Add(-limits.Stale)) {`,
		`	if v.Readmits == nil || true {
		if !v.Imported && v.ViewedAt.Before(o.now.Add(-limits.Stale)) {`),
}
