"""Orders in the admin."""

from __future__ import annotations

from django.contrib import admin

from .models import Order


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """A list of them."""

    list_display = ("id", "customer", "product", "quantity", "placed_at", "booked_at")
    list_filter = ("product",)
