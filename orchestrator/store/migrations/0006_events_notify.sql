-- Who listens is told once a statement and ticket, not once a row: a batch is thousands of rows.
CREATE FUNCTION mc_notify_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mc_events', ticket_id::text) FROM (SELECT DISTINCT ticket_id FROM added) AS t;
    RETURN NULL;
END $$;
DROP TRIGGER ticket_events_notify ON ticket_events;
CREATE TRIGGER ticket_events_notify AFTER INSERT ON ticket_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION mc_notify_events();
