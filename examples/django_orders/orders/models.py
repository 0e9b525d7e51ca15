"""What customers ordered."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order: placed by a view, booked in the warehouse by a batch."""

    customer = models.CharField(max_length=50)
    product = models.CharField(max_length=50)
    quantity = models.PositiveIntegerField()
    placed_at = models.DateTimeField(auto_now_add=True)
    booked_at = models.DateTimeField(null=True, blank=True, db_index=True)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product} for {self.customer}"
