"""The shop's own tests: without any server, on a clock moved by hand."""

from __future__ import annotations

from datetime import timedelta

from django.test import TransactionTestCase
from django.utils import timezone

from .batches import book, unbooked, warehouse
from .models import Order


class OrdersTest(TransactionTestCase):
    def test_placed_orders_are_booked_in_batches(self) -> None:
        with warehouse.testing() as t:
            self.client.post("/place", {"number": "250", "customer": "Ada"})
            assert Order.objects.filter(booked_at=None).count() == 250
            t.run_until_done()
            t.assert_done(book, count=250)
            assert all(len(batch.operations) <= 100 for batch in t.batches)
        assert not Order.objects.filter(booked_at=None).exists()

    def test_what_the_warehouse_has_not_is_a_dead_letter(self) -> None:
        with warehouse.testing() as t:
            self.client.post("/place", {"number": "1", "product": "unicorns"})
            t.run_until_done()
            t.assert_dead(book, count=1)

    def test_what_nobody_booked_is_booked_at_night(self) -> None:
        with warehouse.testing() as t:
            old = Order.objects.create(customer="Ada", product="apples", quantity=1)
            Order.objects.update(placed_at=timezone.now() - timedelta(days=2))
            Order.objects.create(customer="Bob", product="pears", quantity=1)
            unbooked.run()
            t.run_until_done()
            t.assert_done(book, count=1)
        assert Order.objects.exclude(booked_at=None).get() == old
