"""The plugin for pytest, as a project of a user has it: in a pytest of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "celery_batcher.contrib.pytest", "-p", "no:cacheprovider", "--strict-markers")
"""By name, so that it is loaded where the package is a checkout, too."""
PROJECT = """
from celery import Celery
from celery_batcher import Batcher, ProvisionedResource

app = Celery("proj", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
store = Batcher("store", app=app, rate_limiter=ProvisionedResource(10, name="r"))
other = Batcher("other", app=app, rate_limiter=ProvisionedResource(10, name="r"))

of_any_app = Batcher("of_any_app")
loose = of_any_app.watcher(name="loose")(lambda batch: None)

@store.watcher(name="write")
def write(batch):
    copy.enqueue_many(one.payload for one in batch)

@other.watcher(name="copy")
def copy(batch):
    pass
"""


def test_a_project_tests_its_batchers_with_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        proj=PROJECT,
        test_proj="""
        import pytest
        from celery_batcher import ConfigurationError
        from proj import copy, loose, store, write

        @pytest.mark.parametrize("n", range(3))
        def test_all_batchers_of_the_app(batcher_testing, n):
            write.enqueue_many(range(20))
            batcher_testing.run_until_done()
            batcher_testing.assert_done(copy, count=20)
            batcher_testing.assert_never_over_capacity()

        @pytest.mark.batchers(store)
        def test_some(batcher_testing):
            assert list(batcher_testing.operations) == []
            with pytest.raises(LookupError, match="they have write"):
                batcher_testing.assert_enqueued(copy)

        @pytest.mark.batchers("other")
        def test_some_by_name(batcher_testing):
            copy.enqueue(1)
            batcher_testing.step()
            batcher_testing.assert_done("copy")

        def test_with_the_app_of_pytest_celery(celery_app, batcher_testing):
            loose.enqueue(1)
            batcher_testing.run(seconds=1)
            batcher_testing.assert_done(loose, payload=1)

        @pytest.mark.batchers("othr")
        def test_none(batcher_testing):
            pass

        def test_it_says_what_is_wrong(batcher_testing):
            write.enqueue({"id": 1})
            batcher_testing.assert_done(write)
        """,
    )

    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "celery.contrib.pytest", "-n1")

    result.assert_outcomes(passed=6, failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*NoBatcherError: the app has no batcher 'othr': did you mean 'other'?",
            "*expected at least one operation of write done; found 0",
            "*{'id': 1}, cost 1: not handled yet",
        ]
    )


def test_without_batchers_it_says_what_to_do_and_unused_it_does_nothing(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        def test_nothing():
            pass

        def test_no_batchers(batcher_testing):
            pass
        """
    )

    result = pytester.runpytest_subprocess(*PLUGIN, "-Werror")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*has no batchers here. Import the module that makes them*"])
