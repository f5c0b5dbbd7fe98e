"""Intent to events: what turns a ticket into a systemd unit, and what the unit did into rows."""
