"""What fits celery_batcher to other packages; each needs its extra."""
