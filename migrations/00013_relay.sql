-- +goose Up
CREATE TABLE relay_partitions (
    partition         integer          NOT NULL,
    topic_id          uuid             NOT NULL,
    next_offset       bigint           NOT NULL,
    calls_from        bigint           NOT NULL,
    marked_topics     text[]           NOT NULL,
    marked_topic_ids  uuid[]           NOT NULL,
    marked_partitions integer[]        NOT NULL,
    marked_to         bigint[]         NOT NULL,
    live_versions     text             NOT NULL,
    CONSTRAINT relay_partitions_pkey PRIMARY KEY (partition),
    CONSTRAINT relay_partitions_next_offset_not_negative CHECK (next_offset >= 0),
    CONSTRAINT relay_partitions_marks_complete CHECK (
        cardinality(marked_topics) = cardinality(marked_to) AND cardinality(marked_topic_ids) = cardinality(marked_to)
        AND cardinality(marked_partitions) = cardinality(marked_to))
);
COMMENT ON TABLE relay_partitions IS
    'Owner: relay. How far each partition of the topic impressions is in relay_counts, and up to where everything that changes counts was told. Rebuildable, by looking at every post.';
COMMENT ON COLUMN relay_partitions.calls_from IS 'Milestones on the topic below this were called before this row was made.';
COMMENT ON COLUMN relay_partitions.marked_to IS 'Per partition of verdicts, and the one of posts: what lies below was told. Empty: not known, every post is to be looked at.';
COMMENT ON COLUMN relay_partitions.live_versions IS 'Of the read models that were looked at: after a swap every post is looked at again. Empty: not known.';

CREATE TABLE relay_counts (
    tenant            text COLLATE "C" NOT NULL,
    post              text COLLATE "C" NOT NULL,
    partition         integer          NOT NULL,
    impressions       bigint           NOT NULL,
    unique_viewers    bigint           NOT NULL,
    imported          bigint           NOT NULL,
    revision          bigint           NOT NULL,
    highest_milestone bigint           NOT NULL,
    as_of             timestamptz      NOT NULL,
    record_offset     bigint           NOT NULL,
    CONSTRAINT relay_counts_pkey PRIMARY KEY (tenant, post),
    CONSTRAINT relay_counts_revision_positive CHECK (revision > 0)
) WITH (fillfactor = 70);
-- What an endpoint was not sent yet: the posts that were told since, each with its last record only.
CREATE INDEX relay_counts_record_offset_idx ON relay_counts (tenant, partition, record_offset);
COMMENT ON TABLE relay_counts IS
    'Owner: relay. What was last told of each post. Rebuildable: a fold of the topic impressions.';
COMMENT ON COLUMN relay_counts.as_of IS 'The epoch stands for "not known".';

CREATE TABLE relay_cursors (
    tenant      text COLLATE "C" NOT NULL,
    endpoint    text COLLATE "C" NOT NULL,
    partition   integer          NOT NULL,
    next_offset bigint           NOT NULL,
    CONSTRAINT relay_cursors_pkey PRIMARY KEY (tenant, endpoint, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE relay_cursors IS
    'Owner: relay. Up to which offset of the topic impressions an endpoint has acknowledged. Not rebuildable, but without it everything is only sent once more.';

CREATE TABLE relay_endpoints (
    tenant          text COLLATE "C" NOT NULL,
    endpoint        text COLLATE "C" NOT NULL,
    failing_since   timestamptz,
    attempts        integer          NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_error      text             NOT NULL DEFAULT '',
    last_success_at timestamptz,
    CONSTRAINT relay_endpoints_pkey PRIMARY KEY (tenant, endpoint),
    CONSTRAINT relay_endpoints_failing CHECK ((failing_since IS NULL) = (attempts = 0) AND (failing_since IS NULL) = (next_attempt_at IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE relay_endpoints IS 'Owner: relay. How the calls of each endpoint go. Not rebuildable, and none is needed.';
COMMENT ON COLUMN relay_endpoints.failing_since IS 'Since when no call has worked; NULL: the last one did.';

CREATE TABLE relay_milestones (
    tenant      text COLLATE "C" NOT NULL,
    endpoint    text COLLATE "C" NOT NULL,
    post        text COLLATE "C" NOT NULL,
    milestone   bigint           NOT NULL,
    partition   integer          NOT NULL,
    impressions bigint           NOT NULL,
    revision    bigint           NOT NULL,
    CONSTRAINT relay_milestones_pkey PRIMARY KEY (tenant, endpoint, post, milestone)
);
COMMENT ON TABLE relay_milestones IS 'Owner: relay. Calls of milestones that no endpoint has acknowledged yet. Not rebuildable.';

CREATE TABLE relay_parked (
    tenant    text COLLATE "C" NOT NULL,
    endpoint  text COLLATE "C" NOT NULL,
    post      text COLLATE "C" NOT NULL,
    milestone bigint           NOT NULL,
    revision  bigint           NOT NULL,
    impressions bigint         NOT NULL,
    partition integer          NOT NULL,
    reason    text             NOT NULL,
    parked_at timestamptz      NOT NULL,
    CONSTRAINT relay_parked_pkey PRIMARY KEY (tenant, endpoint, post, milestone)
);
COMMENT ON TABLE relay_parked IS 'Owner: relay. What an endpoint has refused, until an operator redrives it or the post''s next count is taken. Not rebuildable.';
COMMENT ON COLUMN relay_parked.milestone IS '0: the post''s counts.';

CREATE TABLE relay_resends (
    tenant    text COLLATE "C" NOT NULL,
    post      text COLLATE "C" NOT NULL,
    partition integer          NOT NULL,
    above     bigint           NOT NULL,
    CONSTRAINT relay_resends_pkey PRIMARY KEY (tenant, post)
);
CREATE INDEX relay_resends_partition_idx ON relay_resends (partition);
COMMENT ON TABLE relay_resends IS 'Owner: relay. Posts whose counts an operator wants told again, under a revision above the given one. Not rebuildable: the command is given again.';

-- +goose Down
DROP TABLE relay_resends;
DROP TABLE relay_parked;
DROP TABLE relay_milestones;
DROP TABLE relay_endpoints;
DROP TABLE relay_cursors;
DROP TABLE relay_counts;
DROP TABLE relay_partitions;
