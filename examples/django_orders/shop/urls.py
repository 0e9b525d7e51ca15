"""The routes of the project."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.views.decorators import staff_member_required
from django.urls import path

from celery_batcher.contrib.django.views import metrics
from orders import views

urlpatterns = [
    path("", views.index, name="index"),
    path("place", views.place, name="place"),
    path("numbers", views.numbers, name="numbers"),
    path("metrics", staff_member_required(metrics)),
    path("admin/", admin.site.urls),
]
