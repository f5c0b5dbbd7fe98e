-- What the heartbeat measured of each ticket, for the board and for `ticketctl list`.
ALTER TABLE tickets
    -- its worktree, logs and sidecar
    ADD COLUMN IF NOT EXISTS disk_bytes bigint,
    -- ahead, behind, dirty, untracked, conflicts, text; null without a worktree
    ADD COLUMN IF NOT EXISTS git_state  jsonb;
