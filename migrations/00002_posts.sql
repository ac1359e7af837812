-- +goose Up
CREATE TABLE posts (
    tenant                  text COLLATE "C" NOT NULL,
    post                    text COLLATE "C" NOT NULL,
    version                 bigint           NOT NULL,
    deleted                 boolean          NOT NULL,
    author                  bytea            NOT NULL,
    audience                text COLLATE "C" NOT NULL,
    published_at            timestamptz,
    created_at              timestamptz,
    updated_at              timestamptz,
    body_digest             bytea,
    body_event_id           uuid,
    baseline_impressions    bigint           NOT NULL DEFAULT 0,
    baseline_unique_viewers bigint           NOT NULL DEFAULT 0,
    baseline_as_of          timestamptz,
    CONSTRAINT posts_pkey PRIMARY KEY (tenant, post),
    CONSTRAINT posts_version_not_negative CHECK (version >= 0),
    CONSTRAINT posts_author_is_person_key CHECK (octet_length(author) = 16),
    CONSTRAINT posts_dated CHECK ((version = 0) = (created_at IS NULL) AND (version = 0) = (updated_at IS NULL)),
    CONSTRAINT posts_published CHECK ((version = 0 OR deleted) = (published_at IS NULL)),
    CONSTRAINT posts_body_digest_size CHECK (octet_length(body_digest) = 16),
    CONSTRAINT posts_body_named CHECK ((body_digest IS NULL) = (body_event_id IS NULL)),
    CONSTRAINT posts_baseline_not_negative CHECK (baseline_impressions >= 0 AND baseline_unique_viewers >= 0)
) WITH (fillfactor = 85);
COMMENT ON TABLE posts IS
    'Owner: projection posts, from the topic posts. Rebuildable. Version 0: no post, only imported counts.';
COMMENT ON COLUMN posts.body_event_id IS 'Names the text in post_bodies.';

CREATE TABLE post_events (
    tenant        text COLLATE "C" NOT NULL,
    post          text COLLATE "C" NOT NULL,
    event_id      uuid             NOT NULL,
    event_type    text             NOT NULL,
    outcome       text             NOT NULL,
    version       bigint           NOT NULL,
    recorded_at   timestamptz      NOT NULL,
    partition     integer          NOT NULL,
    record_offset bigint           NOT NULL,
    CONSTRAINT post_events_pkey PRIMARY KEY (tenant, post, event_id),
    CONSTRAINT post_events_outcome_known CHECK (outcome IN ('created', 'replaced', 'unchanged', 'deleted', 'imported',
                                                            'void_conflict', 'void_gone', 'void_missing')),
    CONSTRAINT post_events_version_not_negative CHECK (version >= 0)
);
COMMENT ON TABLE post_events IS
    'Owner: projection posts, from the topic posts. Rebuildable. The first outcome of every post event, by its id.';

CREATE TABLE post_bodies (
    tenant   text COLLATE "C" NOT NULL,
    post     text COLLATE "C" NOT NULL,
    event_id uuid             NOT NULL,
    body     text             NOT NULL,
    CONSTRAINT post_bodies_pkey PRIMARY KEY (tenant, post, event_id),
    CONSTRAINT post_bodies_body_bounded CHECK (octet_length(body) <= 65536)
);
COMMENT ON TABLE post_bodies IS
    'Owner: projection posts, from the compacted topic bodies. Rebuildable. Texts, each named by its post event.';

-- +goose Down
DROP TABLE post_bodies;
DROP TABLE post_events;
DROP TABLE posts;
