-- Waits for a person that somebody was told of: one row a ticket, so that a dispatcher that is started
-- anew tells of nothing twice.
CREATE TABLE told_waits (
    ticket_id integer PRIMARY KEY REFERENCES tickets (id),
    -- the `state` event the wait began with; 0 where there is none
    event_id  bigint NOT NULL,
    told_at   timestamptz NOT NULL DEFAULT now()
);
