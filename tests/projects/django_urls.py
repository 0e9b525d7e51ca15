"""The routes of the Django tests."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from celery_batcher.contrib.django.views import metrics

urlpatterns = [path("admin/", admin.site.urls), path("metrics", metrics)]
