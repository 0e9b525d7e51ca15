"""Who may act in Flower, and how: asked without a browser."""

from __future__ import annotations

import re

import pytest

from flower_stack import BASIC, HOSTILE, Answer, Flower, Stack, http

ACTIONS = ("pause", "resume", "flush", "redrive", "purge")


def post(
    flower: Flower, action: str, *, token: bool = True, login: str = "", **form: str
) -> Answer:
    """An action, with the token of a page or without, and with what a login leaves."""
    headers = {"Authorization": login} if login.startswith("Basic") else {"Cookie": login}
    if token:
        page = http("GET", f"{flower.url}/batchers", headers)
        match = re.search("_xsrf=[^;]*", page.headers.get("Set-Cookie", ""))
        assert match, page
        headers["Cookie"] = f"{headers.get('Cookie', '')}; {match[0]}"
        headers["X-XSRFToken"] = match[0].removeprefix("_xsrf=")
    return http("POST", f"{flower.url}/api/batcher/{action}", headers, **form)


def oauth(flower: Flower) -> str:
    assert flower.cookies is not None
    return "=".join(flower.cookies)


def test_what_a_login_allows_is_done(stack: Stack) -> None:
    answer = post(stack.basic, "flush/cosmos", login=BASIC)
    assert (answer.status, answer.json()) == (200, {"message": "cosmos: a flush was asked for"})


def test_a_pause_may_have_an_end(stack: Stack) -> None:
    assert post(stack.basic, "pause/mail", login=BASIC, seconds="60").status == 200
    paused_for = stack.fleet.project.batchers["mail"].status().paused_for
    assert paused_for is not None
    assert 50 < paused_for <= 60
    assert post(stack.basic, "resume/mail", login=BASIC).status == 200
    refused = post(stack.basic, "pause/mail", login=BASIC, seconds="-1")
    assert (refused.status, refused.text) == (400, "pause(-1.0): seconds above 0, or None")


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_without_the_token_of_a_page(stack: Stack, action: str) -> None:
    for flower, login in ((stack.basic, BASIC), (stack.read_only, oauth(stack.read_only))):
        answer = post(flower, f"{action}/cosmos", token=False, login=login)
        assert (answer.status, "'_xsrf' argument missing" in answer.text) == (403, True)


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_by_get(stack: Stack, action: str) -> None:
    answer = http("GET", f"{stack.basic.url}/api/batcher/{action}/cosmos", {"Authorization": BASIC})
    assert answer.status == 405


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_in_read_only_mode(stack: Stack, action: str) -> None:
    answer = post(stack.read_only, f"{action}/cosmos", login=oauth(stack.read_only))
    assert (answer.status, answer.text) == (403, "Flower is in read-only mode")


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_for_who_has_not_logged_in(stack: Stack, action: str) -> None:
    assert post(stack.unguarded, f"{action}/cosmos").status == 401
    token = {"Cookie": "_xsrf=aabbccdd", "X-XSRFToken": "aabbccdd"}  # whoever has both can make it
    address = f"/api/batcher/{action}/cosmos"
    assert http("POST", stack.basic.url + address, token).status == 401
    assert http("POST", stack.read_only.url + address, token).status == 403


@pytest.mark.parametrize("path", ["batchers", "batcher/mail"])
def test_nothing_is_shown_to_who_has_not_logged_in(stack: Stack, path: str) -> None:
    parts = ["", "/data"] if path == "batchers" else ["", "/data", "/dead", "/why"]
    for part in parts:
        assert http("GET", f"{stack.basic.url}/{path}{part}").status == 401
        answer = http("GET", f"{stack.read_only.url}/{path}{part}")
        assert answer.status == 302
        assert answer.headers["Location"].startswith("/ops/flower/login?next=")


def test_other_sites_are_refused(stack: Stack) -> None:
    headers = {"Authorization": BASIC, "Sec-Fetch-Site": "cross-site"}
    answer = http("POST", f"{stack.basic.url}/api/batcher/flush/cosmos", headers)
    assert (answer.status, answer.text) == (403, "Cross-site request forbidden")


def test_what_is_not_there_is_said(stack: Stack) -> None:
    answer = post(stack.basic, "flush/cosmo", login=BASIC)
    assert (answer.status, "did you mean 'cosmos'" in answer.text) == (404, True), answer
    login = {"Authorization": BASIC}
    assert http("GET", f"{stack.basic.url}/batcher/cosmo", login).status == 404
    assert http("GET", f"{stack.basic.url}/batcher/cosmo/data", login).status == 404
    answer = post(stack.basic, "purge/mail", login=BASIC, watcher="orders.write", all="1")
    assert answer.status == 404
    answer = post(stack.basic, "purge/mail", login=BASIC, watcher="mail.send")
    assert (answer.status, answer.text) == (400, "Either ids or all=1")


def test_pages_may_load_nothing_from_elsewhere_and_run_no_script_but_ours(stack: Stack) -> None:
    page = http("GET", f"{stack.basic.url}/batcher/mail", {"Authorization": BASIC})
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert HOSTILE not in page.text


def test_metrics_are_among_those_of_flower(stack: Stack) -> None:
    answer = http("GET", f"{stack.basic.url}/metrics")
    assert 'celery_batcher_up{batcher="cosmos"} 1.0' in answer.text
