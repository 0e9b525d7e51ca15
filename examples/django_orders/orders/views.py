"""The page: place orders, and see them booked."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from celery_batcher.contrib.django import enqueue_many_on_commit

from .batches import PRODUCTS, book
from .models import Order

MOST = 5_000


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The form, and what became of the orders."""
    newest = Order.objects.order_by("-id")[:10]
    return render(request, "orders/index.html", {"newest": newest, "most": MOST, **count()})


@require_safe
def numbers(request: HttpRequest) -> JsonResponse:
    """The numbers of the page, as they are now."""
    return JsonResponse(count())


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Place orders; they are enqueued when they are in the database, and only then."""
    wanted = request.POST.get("number", "")
    number = min(int(wanted), MOST) if wanted.isdecimal() else 1
    customer = request.POST.get("customer", "")[:50] or "somebody"
    only = request.POST.get("product", "")[:50]
    placed = [
        Order(customer=customer, product=only or PRODUCTS[n % len(PRODUCTS)], quantity=1 + n % 9)
        for n in range(number)
    ]
    with transaction.atomic():
        ids = [order.id for order in Order.objects.bulk_create(placed)]
        enqueue_many_on_commit(
            book,
            ({"id": id} for id in ids),
            key=customer,
            id=lambda payload: f"order-{payload['id']}",
        )
    return redirect("index")


def count() -> dict[str, int]:
    """How many orders are booked, and how many are not."""
    booked = Order.objects.exclude(booked_at=None).count()
    return {"booked": booked, "unbooked": Order.objects.count() - booked}
