-- Tickets that a file declares: the name by which it knows them, and the file that did so last.

ALTER TABLE tickets
    ADD COLUMN IF NOT EXISTS name text CHECK (name ~ '^[A-Za-z][A-Za-z0-9_-]{0,62}$'),
    -- an absolute path, or '-' for stdin; null: no file declares it (any more)
    ADD COLUMN IF NOT EXISTS declared_in text,
    ADD CHECK (declared_in IS NULL OR name IS NOT NULL);
CREATE UNIQUE INDEX tickets_by_name ON tickets (name);
