-- +goose Up
ALTER TABLE positions ADD COLUMN leader_epoch integer NOT NULL DEFAULT 0;
ALTER TABLE positions ADD CONSTRAINT positions_leader_epoch_not_negative CHECK (leader_epoch >= 0);
COMMENT ON COLUMN positions.leader_epoch IS
    'Of the record before next_offset: Kafka''s leader epoch plus one; 0: not known. Shows that the log was cut behind the position and has grown past it since.';

-- +goose Down
ALTER TABLE positions DROP COLUMN leader_epoch;
