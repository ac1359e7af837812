-- +goose Up
CREATE TABLE unique_views (
    tenant          text COLLATE "C" NOT NULL,
    post            text COLLATE "C" NOT NULL,
    viewer          bytea            NOT NULL,
    first_viewed_at timestamptz      NOT NULL,
    last_viewed_at  timestamptz      NOT NULL,
    views           bigint           NOT NULL,
    shard           smallint         NOT NULL,
    CONSTRAINT unique_views_pkey PRIMARY KEY (tenant, post, viewer),
    CONSTRAINT unique_views_viewer_is_person_key CHECK (octet_length(viewer) = 16),
    CONSTRAINT unique_views_first_not_after_last CHECK (first_viewed_at <= last_viewed_at),
    CONSTRAINT unique_views_viewed CHECK (views > 0),
    CONSTRAINT unique_views_shard_known CHECK (shard BETWEEN 0 AND 7)
) WITH (fillfactor = 90);
-- The viewers of a post, newest first, a page at a time. Read backwards.
CREATE INDEX unique_views_first_viewed_at_idx ON unique_views (tenant, post, first_viewed_at, viewer);
COMMENT ON TABLE unique_views IS
    'Owner: projection uniqueviews, from the topic verdicts. Rebuildable. One row per post and known viewer; anonymous views never come here.';

CREATE TABLE unique_view_counts (
    tenant         text COLLATE "C" NOT NULL,
    post           text COLLATE "C" NOT NULL,
    shard          smallint         NOT NULL,
    unique_viewers bigint           NOT NULL,
    CONSTRAINT unique_view_counts_pkey PRIMARY KEY (tenant, post, shard),
    CONSTRAINT unique_view_counts_shard_known CHECK (shard BETWEEN 0 AND 7),
    CONSTRAINT unique_view_counts_counted CHECK (unique_viewers > 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE unique_view_counts IS
    'Owner: projection uniqueviews, from the topic verdicts. Rebuildable. How many rows of unique_views each post has, spread by partition modulo 8.';

-- +goose Down
DROP TABLE unique_view_counts;
DROP TABLE unique_views;
