-- What had happened when a message was sent: what came of it is looked for behind that, by the order
-- of things and not by the clock.
ALTER TABLE queued_messages ADD COLUMN sent_after bigint;
