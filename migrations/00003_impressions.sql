-- +goose Up
-- A count is updated with every batch that saw its post: no index but the key, and room for HOT updates.
CREATE TABLE impressions (
    tenant                text COLLATE "C" NOT NULL,
    post                  text COLLATE "C" NOT NULL,
    shard                 smallint         NOT NULL,
    impressions           bigint           NOT NULL,
    anonymous_impressions bigint           NOT NULL,
    CONSTRAINT impressions_pkey PRIMARY KEY (tenant, post, shard),
    CONSTRAINT impressions_shard_known CHECK (shard BETWEEN 0 AND 7),
    CONSTRAINT impressions_counted CHECK (impressions > 0 AND anonymous_impressions BETWEEN 0 AND impressions)
) WITH (fillfactor = 50);
COMMENT ON TABLE impressions IS
    'Owner: projection impressions, from the topic verdicts. Rebuildable. Counted views per post, spread by partition modulo 8; anonymous ones are part of all.';

-- +goose Down
DROP TABLE impressions;
