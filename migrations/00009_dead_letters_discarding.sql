-- +goose Up
ALTER TABLE dead_letters ADD COLUMN discarding boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dead_letters.discarding IS
    'An operator is giving it up: the decision may stand on tenants already, so nothing may apply it any more.';

-- +goose Down
ALTER TABLE dead_letters DROP COLUMN discarding;
