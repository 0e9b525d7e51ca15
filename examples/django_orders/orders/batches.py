"""The warehouse takes 500 rows a second, from all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from celery.schedules import crontab
from django.utils import timezone

from celery_batcher import Batch, Batcher, ProvisionedResource, Row

from .models import Order

PRODUCTS = ("apples", "pears", "plums")

warehouse = Batcher("warehouse", rate_limiter=ProvisionedResource(500))


@warehouse.watcher(name="orders.book", max_batch_size=100)
def book(batch: Batch) -> None:
    """Book orders in bulk: one query to read them, one to write them."""
    orders = Order.objects.in_bulk([op.payload["id"] for op in batch])
    booked = []
    for op in batch:
        order = orders.get(op.payload["id"])
        if order is None:
            batch.fail(op, "there is no such order: was it deleted?")
        elif order.product not in PRODUCTS:
            batch.fail(op, f"the warehouse has no {order.product}")
        elif order.booked_at is None:  # else an earlier attempt has booked it
            order.booked_at = timezone.now()
            booked.append(order)
    Order.objects.bulk_update(booked, ["booked_at"])


@book.backfill("unbooked")
def unbooked(checkpoint: int | None) -> Iterator[Row]:
    """Orders of yesterday and before that nobody has booked: a process died after its commit."""
    before = timezone.now() - timedelta(days=1)
    orders = Order.objects.filter(booked_at=None, placed_at__lt=before, id__gt=checkpoint or 0)
    for id in orders.order_by("id").values_list("id", flat=True).iterator():
        yield Row({"id": id}, checkpoint=id)


unbooked.schedule(crontab(hour="3", minute="0"))
