-- +goose Up
CREATE TABLE read_models (
    projection   text COLLATE "C" NOT NULL,
    live_version integer          NOT NULL,
    CONSTRAINT read_models_pkey PRIMARY KEY (projection),
    CONSTRAINT read_models_live_version_positive CHECK (live_version > 0)
);
COMMENT ON TABLE read_models IS
    'Owner: rebuild. Which version of each projection readers see. Not rebuildable: an operator''s decision.';
INSERT INTO read_models (projection, live_version)
VALUES ('posts', 1), ('impressions', 1), ('uniqueviews', 1), ('people', 1);

-- A position is updated with every batch and, when idle, every second: room for HOT updates.
CREATE TABLE positions (
    projection       text COLLATE "C" NOT NULL,
    version          integer          NOT NULL,
    topic_id         uuid             NOT NULL,
    partition        integer          NOT NULL,
    topic            text COLLATE "C" NOT NULL,
    next_offset      bigint           NOT NULL DEFAULT 0,
    view_next_offset bigint           NOT NULL DEFAULT 0,
    complete_to      timestamptz      NOT NULL DEFAULT 'epoch',
    CONSTRAINT positions_pkey PRIMARY KEY (projection, version, topic_id, partition),
    CONSTRAINT positions_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection),
    CONSTRAINT positions_partition_not_negative CHECK (partition >= 0),
    CONSTRAINT positions_next_offset_not_negative CHECK (next_offset >= 0),
    CONSTRAINT positions_view_next_offset_not_negative CHECK (view_next_offset >= 0)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE positions IS
    'Owner: projector. What each version of each projection holds, moved in the transaction of its rows. Rebuildable together with those rows only.';
COMMENT ON COLUMN positions.view_next_offset IS
    'On verdicts: one past the highest view offset folded; a verdict below it is a repeat. Else 0.';
COMMENT ON COLUMN positions.complete_to IS
    'Everything accepted before this time is folded; epoch: not known yet.';

CREATE TABLE dead_letters (
    projection    text COLLATE "C" NOT NULL,
    version       integer          NOT NULL,
    topic_id      uuid             NOT NULL,
    partition     integer          NOT NULL,
    record_offset bigint           NOT NULL,
    topic         text COLLATE "C" NOT NULL,
    order_key     bytea            NOT NULL,
    reason        text             NOT NULL,
    follows       boolean          NOT NULL,
    event_type    text             NOT NULL,
    record_key    bytea            NOT NULL,
    record_value  bytea,
    recorded_at   timestamptz      NOT NULL,
    parked_at     timestamptz      NOT NULL,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (projection, version, topic_id, partition, record_offset),
    CONSTRAINT dead_letters_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection),
    CONSTRAINT dead_letters_order_key_bounded CHECK (octet_length(order_key) <= 512),
    CONSTRAINT dead_letters_reason_bounded CHECK (octet_length(reason) BETWEEN 1 AND 1024)
);
CREATE INDEX dead_letters_order_key_idx ON dead_letters (projection, version, order_key)
    WHERE order_key <> '';
COMMENT ON TABLE dead_letters IS
    'Owner: projector. Events that cannot be applied as they stand, with those that follow them on their order key. Not rebuildable: redriven or discarded by an operator.';
COMMENT ON COLUMN dead_letters.order_key IS 'Empty: the fold is commutative, nothing waits behind this event.';
COMMENT ON COLUMN dead_letters.follows IS 'Parked only because of an earlier letter with its order key.';
COMMENT ON COLUMN dead_letters.record_value IS
    'Null where the record could be decoded: it is read from the log again, so that no text that may be erased is copied here.';

-- +goose Down
DROP TABLE dead_letters;
DROP TABLE positions;
DROP TABLE read_models;
