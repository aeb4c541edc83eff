"""When each part of a tick stops, in seconds after the tick began. The next tick does what is left."""

QUEUE_DEADLINE_S = 25.0
"""No statement that queues runs begins later: workers wait for the push, so delivery gets the second half."""
DELIVER_DEADLINE_S = 38.0
"""No push begins later. Redis may be silent for COMMAND_TIMEOUT_S, and the heartbeat must still be written: without it, `status` would say
that nobody calls tick."""
NOTIFY_DEADLINE_S = 46.0
"""The last call of the hook ends before this, so that a tick ends by itself and is not stopped."""
TICK_DEADLINE_S = 50.0
"""The tick is stopped, to be over before cron starts the next one."""
