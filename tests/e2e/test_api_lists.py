"""The list of soirées: order, pages, filters."""

import pytest
from harness.booking import book
from harness.http import all_pages, next_path, ok_json, problem

PATH = "/api/soirees"


def test_a_list_is_a_bare_array_newest_first(daemons):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    assert ok_json(soirees.get(PATH)) == []
    made = [book(soirees, lieu="Lieu %d" % n) for n in range(5)]
    assert ok_json(soirees.get(PATH)) == made[::-1]


@pytest.fixture(scope="module")
def many(soirees):
    """25 soirées of client `many`, oldest first."""
    return [book(soirees, clientId="many", date="2026-01-%02d" % (n + 1),
                 statut="paire" if n % 2 == 0 else "impaire")
            for n in range(25)]


def test_a_list_comes_in_pages_that_follow_each_other(soirees, many):
    items, pages = all_pages(soirees, PATH + "?clientId=many&limit=10")
    assert items == many[::-1]
    assert pages == 3


def test_a_full_last_page_has_no_next(soirees, many):
    reply = soirees.get(PATH, params={"clientId": "many", "limit": 25})
    assert len(ok_json(reply)) == 25 and next_path(reply) is None


def test_a_page_has_100_items_unless_told_otherwise(daemons):
    soirees = daemons.start("soirees", RABBITMQ_PORT=1)
    made = [book(soirees)["id"] for _ in range(101)]
    reply = soirees.get(PATH)
    assert [item["id"] for item in ok_json(reply)] == made[:0:-1]
    rest = soirees.get(next_path(reply))
    assert [item["id"] for item in ok_json(rest)] == made[:1]
    assert next_path(rest) is None
    assert len(ok_json(soirees.get(PATH, params={"limit": 1000}))) == 101


def test_pages_are_steady_while_others_insert_and_delete(soirees):
    made = [book(soirees, clientId="steady") for _ in range(9)]
    first = soirees.get(PATH, params={"clientId": "steady", "limit": 3})
    seen = [item["id"] for item in ok_json(first)]
    book(soirees, clientId="steady")
    soirees.delete(PATH + "/" + made[8]["id"])
    soirees.delete(PATH + "/" + made[6]["id"])  # the last of the page that was read
    rest, _pages = all_pages(soirees, next_path(first))
    assert seen + [item["id"] for item in rest] == [item["id"] for item in made[::-1]]


@pytest.mark.parametrize("query, wanted", [
    ("statut=paire", range(0, 25, 2)), ("statut=impaire", range(1, 25, 2)), ("statut=absente", []),
    ("dateFrom=2026-01-20", range(19, 25)), ("dateTo=2026-01-03", range(3)),
    ("dateFrom=2026-01-05&dateTo=2026-01-05", [4]),
    ("dateFrom=2026-01-05&dateTo=2026-01-09&statut=paire", [4, 6, 8]),
    ("dateFrom=2026-01-09&dateTo=2026-01-05", [])])
def test_filters_narrow_the_list(soirees, many, query, wanted):
    found = ok_json(soirees.get("%s?clientId=many&%s" % (PATH, query)))
    assert found == [many[n] for n in wanted][::-1]


def test_filters_stay_in_force_on_the_next_page(soirees, many):
    items, pages = all_pages(soirees, PATH + "?clientId=many&statut=paire&dateFrom=2026-01-02&limit=5")
    assert items == [many[n] for n in range(2, 25, 2)][::-1]
    assert pages == 3


def test_a_filter_is_percent_decoded(soirees):
    made = book(soirees, clientId="é & co/+%")
    assert ok_json(soirees.get(PATH, params={"clientId": "é & co/+%"})) == [made]


@pytest.mark.parametrize("query", [
    "limit=0", "limit=1001", "limit=-1", "limit=abc", "limit=", "limit=1.5", "limit=99999999999999999999",
    "limit=%2010", "cursor=nonsense", "cursor=%00", "dateFrom=hier", "dateTo=2025-02-29", "clientId=%FF",
    "limit=1&limit=2"])
def test_a_bad_limit_cursor_or_filter_is_a_422(soirees, query):
    problem(soirees.get(PATH + "?" + query), 422)


def test_an_unknown_query_parameter_is_ignored(soirees, many):
    assert len(ok_json(soirees.get(PATH + "?clientId=many&_=123&sort=x"))) == 25
