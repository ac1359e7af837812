-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION remove_read_model(of_projection text) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    of_schema text;
BEGIN
    FOR of_schema IN SELECT read_model_schema(v.projection, v.version) FROM read_model_versions v WHERE v.projection = of_projection LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', of_schema);
    END LOOP;
    DELETE FROM rebuilds b WHERE b.projection = of_projection;
    DELETE FROM dead_letters d WHERE d.projection = of_projection;
    DELETE FROM positions p WHERE p.projection = of_projection;
    DELETE FROM read_model_versions v WHERE v.projection = of_projection;
    DELETE FROM read_models r WHERE r.projection = of_projection;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION remove_read_model IS 'For migrations: takes back what add_read_model made.';

-- +goose StatementBegin
SELECT add_read_model('timeseries', $tables$

-- Hours and days stand beside each other, so that a year of days is read as days. A row is written while its bucket
-- lasts and a little longer, then never again: room for HOT updates would be kept for ever, so there is little.
CREATE TABLE timeseries_posts (
    tenant text COLLATE "C" NOT NULL,
    post   text COLLATE "C" NOT NULL,
    unit   text COLLATE "C" NOT NULL,
    bucket timestamptz      NOT NULL,
    reason text COLLATE "C" NOT NULL,
    shard  smallint         NOT NULL,
    views  bigint           NOT NULL,
    CONSTRAINT timeseries_posts_pkey PRIMARY KEY (tenant, post, unit, bucket, reason, shard),
    CONSTRAINT timeseries_posts_unit_known CHECK (unit IN ('day', 'hour')),
    CONSTRAINT timeseries_posts_bucket_starts_unit CHECK (date_trunc(unit, bucket AT TIME ZONE 'UTC') = bucket AT TIME ZONE 'UTC'),
    CONSTRAINT timeseries_posts_shard_known CHECK (shard BETWEEN 0 AND 7),
    CONSTRAINT timeseries_posts_viewed CHECK (views > 0)
) WITH (fillfactor = 90);
COMMENT ON TABLE timeseries_posts IS
    'Owner: projection timeseries, from the topic verdicts. Rebuildable. Views of each post by hour and by day of UTC, spread by partition modulo 8; refused ones only where the gate knew the post.';
COMMENT ON COLUMN timeseries_posts.bucket IS 'When it starts.';
COMMENT ON COLUMN timeseries_posts.reason IS 'Why the views were refused; empty: they were counted.';

-- Few rows, and those of the present hour and day are updated with every batch: much room for HOT updates.
CREATE TABLE timeseries_tenants (
    tenant text COLLATE "C" NOT NULL,
    unit   text COLLATE "C" NOT NULL,
    bucket timestamptz      NOT NULL,
    reason text COLLATE "C" NOT NULL,
    shard  smallint         NOT NULL,
    views  bigint           NOT NULL,
    CONSTRAINT timeseries_tenants_pkey PRIMARY KEY (tenant, unit, bucket, reason, shard),
    CONSTRAINT timeseries_tenants_unit_known CHECK (unit IN ('day', 'hour')),
    CONSTRAINT timeseries_tenants_bucket_starts_unit CHECK (date_trunc(unit, bucket AT TIME ZONE 'UTC') = bucket AT TIME ZONE 'UTC'),
    CONSTRAINT timeseries_tenants_shard_known CHECK (shard BETWEEN 0 AND 7),
    CONSTRAINT timeseries_tenants_viewed CHECK (views > 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE timeseries_tenants IS
    'Owner: projection timeseries, from the topic verdicts. Rebuildable. Views of each tenant by hour and by day of UTC, spread by partition modulo 8; refused ones with and without a post.';
COMMENT ON COLUMN timeseries_tenants.bucket IS 'When it starts.';
COMMENT ON COLUMN timeseries_tenants.reason IS 'Why the views were refused; empty: they were counted.';

$tables$);
-- +goose StatementEnd

-- +goose Down
SELECT remove_read_model('timeseries');
DROP FUNCTION remove_read_model;
