"""Celery's settings, the same for all three ways."""

import os

broker_url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True
task_ignore_result = True

# Only so that the demo can clean up on a Redis server that is yours.
prefix = os.environ.get("DEMO_KEY_PREFIX", "")
broker_transport_options = {"global_keyprefix": prefix}
batcher_key_prefix = f"{prefix}celery_batcher:"
