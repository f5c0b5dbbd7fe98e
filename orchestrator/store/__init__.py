"""The only SQL: tickets, messages, events and logins, in PostgreSQL.

Everything else speaks to the database through the functions here, and gets frozen records back.
"""
