-- +goose Up
-- Of the counted views, those that an import brought: what rose beyond them rose by live views. The fold version stays 1:
-- no release has imported views, so 0 is right in every row that one has left. Where a program between releases has
-- imported some, `seenby rebuild impressions --accept-differences` and a name mend it.
-- +goose StatementBegin
SELECT change_read_model('impressions', $$
ALTER TABLE impressions
    ADD COLUMN imported_impressions bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT impressions_imported_counted CHECK (imported_impressions BETWEEN 0 AND impressions);
COMMENT ON COLUMN impressions.imported_impressions IS 'Of impressions, those that were imported, view by view.';
$$);
-- +goose StatementEnd

-- +goose Down
DROP VIEW impressions; -- it names the column; change_read_model makes it again
SELECT change_read_model('impressions', $$ ALTER TABLE impressions DROP COLUMN imported_impressions $$);
