-- What a ticket says about its isolation itself; NULL: as configured.
ALTER TABLE tickets ADD COLUMN isolation text CHECK (isolation IN ('workspace', 'off'));
