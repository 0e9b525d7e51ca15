"""A view of the numbers of all batchers, for Prometheus."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from .apps import celery_app


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics of docs/metrics.md. It asks nobody who they are: route it where that is done."""
    from ..prometheus import exposition

    body, content_type = exposition(celery_app())
    return HttpResponse(body, content_type=content_type)
