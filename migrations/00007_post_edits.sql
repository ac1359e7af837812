-- +goose Up
-- A text whose event is void, or whose post is deleted, is emptied at once and waits here for its tombstone.
ALTER TABLE post_bodies ADD COLUMN erasable boolean NOT NULL DEFAULT false;
UPDATE post_bodies b
SET body = '', erasable = true
WHERE EXISTS (SELECT FROM posts p WHERE p.tenant = b.tenant AND p.post = b.post AND p.deleted)
   OR EXISTS (SELECT FROM post_events e
              WHERE e.tenant = b.tenant AND e.post = b.post AND e.event_id = b.event_id AND starts_with(e.outcome, 'void_'));
ALTER TABLE post_bodies ADD CONSTRAINT post_bodies_erasable_are_empty CHECK (NOT erasable OR body = '');
CREATE INDEX post_bodies_erasable_idx ON post_bodies (tenant, post, event_id) WHERE erasable;
COMMENT ON COLUMN post_bodies.erasable IS
    'The event that names the text is void, or its post is deleted: the keeper appends the tombstone, which takes the row away.';

-- The history of a post, a page at a time. A post's events are all in one partition.
CREATE INDEX post_events_record_offset_idx ON post_events (tenant, post, record_offset);

-- The feed, newest first, a page at a time: of all, of an author, of an audience. Read backwards.
CREATE INDEX posts_feed_idx ON posts (tenant, published_at, post) WHERE published_at IS NOT NULL;
CREATE INDEX posts_author_feed_idx ON posts (tenant, author, published_at, post) WHERE published_at IS NOT NULL;
CREATE INDEX posts_audience_feed_idx ON posts (tenant, audience, published_at, post) WHERE published_at IS NOT NULL;

-- +goose Down
DROP INDEX posts_audience_feed_idx;
DROP INDEX posts_author_feed_idx;
DROP INDEX posts_feed_idx;
DROP INDEX post_events_record_offset_idx;
DROP INDEX post_bodies_erasable_idx;
ALTER TABLE post_bodies DROP CONSTRAINT post_bodies_erasable_are_empty;
ALTER TABLE post_bodies DROP COLUMN erasable;
