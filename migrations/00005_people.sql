-- +goose Up
CREATE TABLE people (
    tenant    text COLLATE "C" NOT NULL,
    person    bytea            NOT NULL,
    id        text COLLATE "C",
    erased_at timestamptz,
    CONSTRAINT people_pkey PRIMARY KEY (tenant, person),
    CONSTRAINT people_person_is_person_key CHECK (octet_length(person) = 16),
    CONSTRAINT people_id_bounded CHECK (octet_length(id) BETWEEN 1 AND 255),
    CONSTRAINT people_erased_have_no_id CHECK (id IS NULL OR erased_at IS NULL)
);
COMMENT ON TABLE people IS
    'Owner: projection people, from the compacted topic people. Rebuildable. The app''s own id of each person key; an erased person keeps a row without an id, for ever.';

-- +goose Down
DROP TABLE people;
