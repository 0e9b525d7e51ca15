"""What a worker's main process does beside Celery's own: batches of lost children come back."""
