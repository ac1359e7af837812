-- +goose Up
CREATE TABLE read_model_versions (
    projection   text COLLATE "C" NOT NULL,
    version      integer          NOT NULL,
    fold_version integer          NOT NULL,
    followed     boolean          NOT NULL,
    CONSTRAINT read_model_versions_pkey PRIMARY KEY (projection, version),
    CONSTRAINT read_model_versions_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection),
    CONSTRAINT read_model_versions_version_positive CHECK (version > 0),
    CONSTRAINT read_model_versions_fold_version_positive CHECK (fold_version > 0)
);
COMMENT ON TABLE read_model_versions IS
    'Owner: rebuild. The versions of each read model that stand, each with its tables in a schema of its own, NAME_vN. Not rebuildable: an operator''s decision.';
COMMENT ON COLUMN read_model_versions.fold_version IS
    'Of the fold that fills the version: a process whose program has another one leaves it alone.';
COMMENT ON COLUMN read_model_versions.followed IS
    'Projectors keep it current: the live version, the one before it, and one that is about to be live. Else only a rebuild moves it.';
INSERT INTO read_model_versions (projection, version, fold_version, followed)
SELECT r.projection, r.live_version, 1, true
FROM read_models r;

ALTER TABLE read_models ADD CONSTRAINT read_models_live_version_fkey
    FOREIGN KEY (projection, live_version) REFERENCES read_model_versions (projection, version) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE positions DROP CONSTRAINT positions_projection_fkey;
ALTER TABLE positions ADD CONSTRAINT positions_version_fkey
    FOREIGN KEY (projection, version) REFERENCES read_model_versions (projection, version);
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_projection_fkey;
ALTER TABLE dead_letters ADD CONSTRAINT dead_letters_version_fkey
    FOREIGN KEY (projection, version) REFERENCES read_model_versions (projection, version);

-- +goose StatementBegin
CREATE FUNCTION read_model_schema(projection text, version integer) RETURNS text
    LANGUAGE sql IMMUTABLE
AS $$ SELECT projection || '_v' || version $$;
-- +goose StatementEnd
COMMENT ON FUNCTION read_model_schema IS 'The schema that holds the tables of a version.';

-- A view whose columns are the first ones of its successor keeps its oid: readers' statements go on.
-- +goose StatementBegin
CREATE FUNCTION show_read_model(of_projection text, of_version integer) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    of_schema text := read_model_schema(of_projection, of_version);
    of_table  text;
BEGIN
    FOR of_table IN
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = of_schema::regnamespace AND c.relkind = 'r' ORDER BY c.relname
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW public.%I AS SELECT * FROM %I.%I', of_table, of_schema, of_table);
        EXECUTE format('COMMENT ON VIEW public.%I IS %L', of_table, 'Owner: rebuild. What readers see of ' || of_projection || ': the table of the live version.');
    END LOOP;
    UPDATE read_models r SET live_version = of_version WHERE r.projection = of_projection AND r.live_version <> of_version;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION show_read_model IS 'Makes a version the live one: from here on readers see its tables.';

-- +goose StatementBegin
CREATE FUNCTION add_read_model(of_projection text, ddl text) RETURNS void
    LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO read_models (projection, live_version) VALUES (of_projection, 1);
    INSERT INTO read_model_versions (projection, version, fold_version, followed) VALUES (of_projection, 1, 1, true);
    EXECUTE format('CREATE SCHEMA %I', read_model_schema(of_projection, 1));
    PERFORM change_read_model(of_projection, ddl);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION add_read_model IS 'For migrations: a new projection, with the tables of its first version.';

-- Locks are taken in the order of readers, who have read_models, then views, then tables: else they would meet in a
-- deadlock. A rebuild that makes or drops a version meanwhile waits, so that none is left out.
-- +goose StatementBegin
CREATE FUNCTION change_read_model(of_projection text, ddl text) RETURNS void
    LANGUAGE plpgsql
AS $$
DECLARE
    of_version  integer;
    of_view     text;
    search_path text := current_setting('search_path');
BEGIN
    LOCK TABLE read_models IN ACCESS EXCLUSIVE MODE;
    LOCK TABLE read_model_versions IN SHARE MODE;
    FOR of_view IN
        SELECT c.relname
        FROM read_models r
        JOIN pg_class t ON t.relnamespace = read_model_schema(r.projection, r.live_version)::regnamespace AND t.relkind = 'r'
        JOIN pg_class c ON c.relnamespace = 'public'::regnamespace AND c.relname = t.relname AND c.relkind = 'v'
        WHERE r.projection = of_projection
        ORDER BY c.relname
    LOOP
        EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', of_view);
    END LOOP;
    FOR of_version IN SELECT v.version FROM read_model_versions v WHERE v.projection = of_projection ORDER BY v.version LOOP
        PERFORM set_config('search_path', format('%I, public', read_model_schema(of_projection, of_version)), true);
        EXECUTE ddl;
    END LOOP;
    PERFORM set_config('search_path', search_path, true);
    PERFORM show_read_model(r.projection, r.live_version) FROM read_models r WHERE r.projection = of_projection;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION change_read_model IS
    'For migrations: changes the tables of every version of a projection. Columns are only ever added, with a default, so that older programs go on.';

CREATE SCHEMA posts_v1;
ALTER TABLE posts SET SCHEMA posts_v1;
ALTER TABLE post_events SET SCHEMA posts_v1;
ALTER TABLE post_bodies SET SCHEMA posts_v1;
ALTER TABLE audience_members SET SCHEMA posts_v1;
CREATE SCHEMA impressions_v1;
ALTER TABLE impressions SET SCHEMA impressions_v1;
CREATE SCHEMA uniqueviews_v1;
ALTER TABLE unique_views SET SCHEMA uniqueviews_v1;
ALTER TABLE unique_view_counts SET SCHEMA uniqueviews_v1;
CREATE SCHEMA people_v1;
ALTER TABLE people SET SCHEMA people_v1;
SELECT show_read_model(r.projection, r.live_version) FROM read_models r;

CREATE TABLE rebuilds (
    id            bigint           NOT NULL GENERATED ALWAYS AS IDENTITY,
    projection    text COLLATE "C" NOT NULL,
    version       integer          NOT NULL,
    fold_version  integer          NOT NULL,
    from_version  integer          NOT NULL,
    proven        boolean          NOT NULL,
    phase         text             NOT NULL,
    wanted        text             NOT NULL,
    outcome       text             NOT NULL DEFAULT '',
    run           integer          NOT NULL,
    events_done   bigint           NOT NULL DEFAULT 0,
    events_total  bigint           NOT NULL DEFAULT 0,
    reason        text             NOT NULL DEFAULT '',
    differences   bigint           NOT NULL DEFAULT 0,
    accepted_by   text             NOT NULL DEFAULT '',
    started_at    timestamptz      NOT NULL,
    updated_at    timestamptz      NOT NULL,
    loaded_at     timestamptz,
    ended_at      timestamptz,
    CONSTRAINT rebuilds_pkey PRIMARY KEY (id),
    CONSTRAINT rebuilds_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection),
    CONSTRAINT rebuilds_phase_known CHECK (phase IN ('load', 'keys', 'catch up', 'prove', 'swap', 'done')),
    CONSTRAINT rebuilds_wanted_known CHECK (wanted IN ('run', 'pause', 'cancel')),
    CONSTRAINT rebuilds_outcome_known CHECK (outcome IN ('', 'swapped', 'cancelled')),
    CONSTRAINT rebuilds_ended CHECK ((outcome = '') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX rebuilds_unfinished_key ON rebuilds (projection) WHERE outcome = '';
COMMENT ON TABLE rebuilds IS 'Owner: rebuild. Every rebuild there was, and how far the unfinished ones are. Not rebuildable: it is a history.';
COMMENT ON COLUMN rebuilds.proven IS 'To be compared with the live version before the swap; false where that was empty when the rebuild began, never complete, or standing still.';
COMMENT ON COLUMN rebuilds.run IS 'Counts the processes that worked on it: one whose number is no longer this one writes nothing.';
COMMENT ON COLUMN rebuilds.reason IS 'Why the last process stopped; empty: it did not, or it is through.';
COMMENT ON COLUMN rebuilds.accepted_by IS 'Who accepted the differences; empty: there was nothing to accept.';

-- +goose Down
DROP TABLE rebuilds;
-- +goose StatementBegin
DO $$
DECLARE
    of_schema text;
    of_table  text;
BEGIN
    FOR of_schema, of_table IN
        SELECT n.nspname, c.relname
        FROM read_models r
        JOIN pg_namespace n ON n.nspname = read_model_schema(r.projection, r.live_version)
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
    LOOP
        EXECUTE format('DROP VIEW public.%I', of_table);
        EXECUTE format('ALTER TABLE %I.%I SET SCHEMA public', of_schema, of_table);
    END LOOP;
    FOR of_schema IN SELECT read_model_schema(v.projection, v.version) FROM read_model_versions v LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', of_schema);
    END LOOP;
END
$$;
-- +goose StatementEnd
DROP FUNCTION add_read_model;
DROP FUNCTION change_read_model;
DROP FUNCTION show_read_model;
DROP FUNCTION read_model_schema;
DELETE FROM dead_letters d USING read_models r WHERE r.projection = d.projection AND r.live_version <> d.version;
DELETE FROM positions p USING read_models r WHERE r.projection = p.projection AND r.live_version <> p.version;
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_version_fkey;
ALTER TABLE dead_letters ADD CONSTRAINT dead_letters_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection);
ALTER TABLE positions DROP CONSTRAINT positions_version_fkey;
ALTER TABLE positions ADD CONSTRAINT positions_projection_fkey FOREIGN KEY (projection) REFERENCES read_models (projection);
ALTER TABLE read_models DROP CONSTRAINT read_models_live_version_fkey;
DROP TABLE read_model_versions;
