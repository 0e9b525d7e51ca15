"""The admin's pages of batchers: their status, what failed for good, and the controls."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from ... import batcher as engine
from ...dead_letters import DeadLetter
from ...errors import BatcherError, NoBatcherError
from ...tasks import batchers, the_batcher
from . import models
from .apps import celery_app

VIEW, OPERATE = "celery_batcher.view_batcher", "celery_batcher.operate_batcher"
_LETTERS = 50
"""Dead letters that a page shows, of each watcher."""


@admin.register(models.Batcher)
class BatcherAdmin(admin.ModelAdmin):
    """Two pages: all batchers, and one.

    Whoever may ``view_batcher`` sees them, payloads of dead letters included, through the mask;
    whoever may ``operate_batcher`` can change what the fleet does. Changes are in the admin's log.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Batchers are made in code."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """They are not deleted here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may operate them."""
        return bool(request.user.has_perm(OPERATE))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may look at them."""
        return bool(request.user.has_perm(VIEW) or request.user.has_perm(OPERATE))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the admin's index shows them."""
        return self.has_view_permission(request)

    def get_urls(self) -> list[URLPattern]:
        """The pages, and the actions of a batcher."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name="celery_batcher_batcher_changelist"),
            path("<name>/", view(self.page), name="celery_batcher_batcher_change"),
            path("<name>/<action>/", view(self.act), name="celery_batcher_batcher_act"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """All batchers."""
        self._check(request, self.has_view_permission)
        rows = [_row(one) for one in sorted(batchers(celery_app()), key=lambda one: one.name)]
        context = {"title": "Batchers", "rows": rows, **(extra_context or {})}
        return self._page(request, "celery_batcher/batchers.html", context)

    def page(self, request: HttpRequest, name: str) -> HttpResponse:
        """One batcher."""
        self._check(request, self.has_view_permission)
        found = _found(name)
        context: dict[str, Any] = {
            "title": name,
            "row": _row(found),
            "may_operate": self.has_change_permission(request),
        }
        if "error" not in context["row"]:
            try:
                context["dead"] = _dead(found)
            except BatcherError as exc:
                context["row"] = {"name": name, "error": str(exc)}
        return self._page(request, "celery_batcher/batcher.html", context)

    def act(self, request: HttpRequest, name: str, action: str) -> HttpResponse:
        """Change something, and go back to the page; only POST does."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        self._check(request, self.has_change_permission)
        found, act = _found(name), ACTIONS.get(action)
        if act is None:
            raise Http404(f"there is no action {action}")
        try:
            said = act(found, request)
        except BatcherError as exc:
            self.message_user(request, str(exc), messages.ERROR)
        else:
            self.log_change(request, models.Batcher(name), said)
            self.message_user(request, said, messages.SUCCESS)
        return redirect(reverse("admin:celery_batcher_batcher_change", args=[name]))

    def _check(self, request: HttpRequest, may: Callable[[HttpRequest], bool]) -> None:
        if not may(request):
            raise PermissionDenied

    def _page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        opts = models.Batcher._meta
        every = {**self.admin_site.each_context(request), "opts": opts, **context}
        request.current_app = self.admin_site.name
        return TemplateResponse(request, template, every)


def _found(name: str) -> engine.Batcher:
    try:
        return the_batcher(celery_app(), name)
    except NoBatcherError as exc:
        raise Http404(str(exc)) from exc


def _row(batcher: engine.Batcher) -> dict[str, Any]:
    try:
        now = batcher.status()
        buffered = now.admitted + now.waiting + now.delayed
        return {"name": batcher.name, "status": now, "buffered": buffered, "eta": batcher.eta()}
    except BatcherError as exc:
        return {"name": batcher.name, "error": str(exc)}


def _dead(batcher: engine.Batcher) -> list[dict[str, Any]]:
    """Watchers that have dead letters, with the oldest of these."""
    found = []
    for watcher in batcher.watchers.values():
        letters = list(islice(watcher.dead_letters, _LETTERS))
        if letters:
            found.append(
                {
                    "watcher": watcher.name,
                    "letters": [(one, _shown(batcher, one)) for one in letters],
                    "count": len(watcher.dead_letters),
                }
            )
    return found


def _shown(batcher: engine.Batcher, letter: DeadLetter) -> str:
    shown = batcher.shown(letter.payload)
    return shown if isinstance(shown, str) else repr(shown)


# Actions. Each says what it did.


def _pause(batcher: engine.Batcher, request: HttpRequest) -> str:
    batcher.pause(None)
    return f"Paused {batcher.name} until somebody resumes it."


def _resume(batcher: engine.Batcher, request: HttpRequest) -> str:
    batcher.resume()
    return f"Resumed {batcher.name}."


def _flush(batcher: engine.Batcher, request: HttpRequest) -> str:
    batcher.flush()
    return f"Flushing {batcher.name} as soon as possible."


def _redrive(batcher: engine.Batcher, request: HttpRequest) -> str:
    watcher, ids = _letters(batcher, request)
    count = watcher.dead_letters.redrive(*ids)
    return f"Dead letters of {watcher.name} that wait to be tried again: {count}."


def _purge(batcher: engine.Batcher, request: HttpRequest) -> str:
    watcher, ids = _letters(batcher, request)
    count = watcher.dead_letters.purge(*ids)
    return f"Dead letters of {watcher.name} that were removed for good: {count}."


def _letters(batcher: engine.Batcher, request: HttpRequest) -> tuple[Any, list[str]]:
    """The watcher, and ids of the letters that were ticked."""
    watcher = batcher.watchers.get(request.POST.get("watcher", ""))
    ids = request.POST.getlist("id")
    if watcher is None or not ids:
        raise BatcherError("Nothing was done: tick the dead letters that are meant")
    return watcher, ids


ACTIONS: dict[str, Callable[[engine.Batcher, HttpRequest], str]] = {
    "pause": _pause,
    "resume": _resume,
    "flush": _flush,
    "redrive": _redrive,
    "purge": _purge,
}
