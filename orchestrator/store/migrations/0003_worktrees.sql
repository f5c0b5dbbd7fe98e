-- Worktrees that hold a place, what was put away when a ticket was closed, and what the heartbeat saw.

-- A row is a claim: it is there before the folder is, so that the cap holds against races.
CREATE TABLE worktrees (
    ticket_id   integer PRIMARY KEY REFERENCES tickets (id),
    path        text NOT NULL,
    repo_path   text NOT NULL,
    branch      text NOT NULL,
    base_sha    text NOT NULL,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    removed_at  timestamptz,
    -- what the heartbeat measured last
    disk_bytes  bigint,
    git_state   jsonb,
    measured_at timestamptz
);
CREATE UNIQUE INDEX worktrees_active_path ON worktrees (path) WHERE removed_at IS NULL;
INSERT INTO worktrees (ticket_id, path, repo_path, branch, base_sha)
    SELECT id, worktree_path, repo_path, 'ticket-' || id, COALESCE(base_sha, '')
    FROM tickets
    WHERE worktree_path IS NOT NULL AND kind = 'code' AND status <> 'closed'
    ON CONFLICT DO NOTHING;

CREATE TABLE archives (
    id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    ticket_id  integer NOT NULL REFERENCES tickets (id),
    path       text NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now(),
    size_bytes bigint NOT NULL,
    sha256     text NOT NULL,
    -- branch, head and the files of the worktree that are only in there
    facts      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX archives_by_ticket ON archives (ticket_id, id);

CREATE TABLE heartbeats (
    id   bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at   timestamptz NOT NULL DEFAULT now(),
    data jsonb NOT NULL
);
