"""Messages over a real pipe."""

import json
import multiprocessing
from multiprocessing.connection import Connection

import pytest

from isaac_hydra_ext.workers.channel import Kind, Message

BODY = {"config": {"x": [1, 2.5, None, "ü\n"]}, "spec": {"high": [float("inf")]}}


@pytest.fixture
def ends() -> tuple[Connection, Connection]:
    a, b = multiprocessing.Pipe()
    yield a, b
    a.close()
    b.close()


@pytest.mark.parametrize("body", [{}, BODY])
@pytest.mark.parametrize("kind", list(Kind))
def test_round_trip_of_every_kind(
    ends: tuple[Connection, Connection], kind: Kind, body: dict[str, object]
) -> None:
    a, b = ends
    sent = Message(kind, generation=3, iteration=2**40, version=2**41, slot=7, body=body)
    sent.send(a)
    received = Message.receive(b)
    assert received == sent
    assert isinstance(received.kind, Kind)
    assert not b.poll(0)


def test_on_the_wire_there_is_a_header_and_json_and_no_pickle(
    ends: tuple[Connection, Connection],
) -> None:
    a, b = ends
    Message(Kind.READY, 0, iteration=5, version=4, slot=1).send(a)
    header = b.recv_bytes()
    Message(Kind.ERROR, 0, body={"message": "x"}).send(a)
    with_body = b.recv_bytes()
    # u8 kind, u32 generation, i64 iteration, i64 version, u32 slot
    assert len(header) == 25
    assert header == b"\x08" + bytes(4) + bytes([5, *[0] * 7, 4, *[0] * 7, 1, 0, 0, 0])
    assert json.loads(with_body[25:]) == {"message": "x"}


def test_messages_arrive_one_by_one_and_in_order(ends: tuple[Connection, Connection]) -> None:
    a, b = ends
    for k in range(20):
        Message(Kind.COLLECT, 0, iteration=k, body={"n": k} if k % 2 else {}).send(a)
    assert [Message.receive(b).iteration for _ in range(20)] == list(range(20))


def test_a_closed_other_side_is_an_eof(ends: tuple[Connection, Connection]) -> None:
    a, b = ends
    a.close()
    with pytest.raises(EOFError):
        Message.receive(b)


def test_kinds_have_the_numbers_of_the_protocol() -> None:
    assert len({int(k) for k in Kind}) == len(Kind) == 15
    assert all(0 < k < 256 for k in Kind)
