"""No table: what Django's permissions and the admin need to name batchers."""

from __future__ import annotations

from django.db import models


class Batcher(models.Model):
    """A batcher, as the admin lists it."""

    name = models.CharField(max_length=255, primary_key=True)

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (
            ("view_batcher", "Can view batchers"),
            ("operate_batcher", "Can pause, resume and flush batchers, redrive and purge"),
        )

    def __str__(self) -> str:
        return str(self.name)
