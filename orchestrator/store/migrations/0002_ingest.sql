-- What ingest needs to remember, and what it could not use.

-- Which file a generation is (inode and time of birth), and what the parser knew at that offset:
-- cost so far, the conversation. It commits with the position, so that both always agree.
ALTER TABLE ingest_positions
    ADD COLUMN IF NOT EXISTS identity text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS state jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE quarantine (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    ticket_id  integer NOT NULL REFERENCES tickets (id),
    source     text NOT NULL,
    generation integer NOT NULL,
    "offset"   bigint NOT NULL,
    "end"      bigint NOT NULL,
    hook       text NOT NULL DEFAULT '',
    reason     text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, generation, "offset")
);

-- When the worker last gave a sign of life, and what its turn state rests on.
ALTER TABLE tickets
    ADD COLUMN IF NOT EXISTS last_sign_at timestamptz,
    ADD COLUMN IF NOT EXISTS state_evidence text NOT NULL DEFAULT '';
-- Sent with --now: before the others, and it breaks off the turn.
ALTER TABLE queued_messages ADD COLUMN IF NOT EXISTS urgent boolean NOT NULL DEFAULT false;
CREATE INDEX ticket_events_by_kind ON ticket_events (ticket_id, kind, id);

-- mc_tickets tells of everything; this one only of workers that come and go, for whoever follows
-- them and writes to tickets itself.
CREATE FUNCTION mc_notify_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mc_workers', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER tickets_notify_workers AFTER UPDATE OF worker_pid, status ON tickets
    FOR EACH ROW WHEN (OLD.worker_pid IS DISTINCT FROM NEW.worker_pid OR OLD.status <> NEW.status)
    EXECUTE FUNCTION mc_notify_workers();
