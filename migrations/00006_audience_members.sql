-- +goose Up
CREATE TABLE audience_members (
    tenant   text COLLATE "C" NOT NULL,
    audience text COLLATE "C" NOT NULL,
    person   bytea            NOT NULL,
    added_at timestamptz      NOT NULL,
    CONSTRAINT audience_members_pkey PRIMARY KEY (tenant, audience, person),
    CONSTRAINT audience_members_person_is_person_key CHECK (octet_length(person) = 16)
);
COMMENT ON TABLE audience_members IS
    'Owner: projection posts, from the topic audiences. Rebuildable. Who is in which audience now.';

-- +goose Down
DROP TABLE audience_members;
