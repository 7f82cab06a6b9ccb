"""Which frames stay, which pass, and that threads read what was announced."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from ernerf_ti.train.frame_store import FrameStore, default_frame_memory

SIZE = 100  # bytes of a frame


class Reader:
    """Frames filled with their index; says which were read, and in which threads."""

    def __init__(self):
        self.read, self.threads = [], set()

    def __call__(self, i: int) -> np.ndarray:
        self.read.append(i)
        self.threads.add(threading.get_ident())
        if i == 13:
            raise ValueError("frame 13 is damaged")
        return np.full(SIZE, i, np.uint8)


def test_frames_stay_until_the_memory_is_full(device):
    reader = Reader()
    store = FrameStore(reader, (SIZE,), device, 3 * SIZE)
    for _ in range(2):
        for i in range(5):
            frame = store.get(i)
            assert frame.device == device and (frame == i).all()
            assert store.get(i) is frame  # also of a frame that doesn't stay
    assert reader.read == [0, 1, 2, 3, 4, 3, 4]


def test_nothing_stays_without_memory(device):
    reader = Reader()
    store = FrameStore(reader, (SIZE,), device)
    frames = [store.get(i) for i in (1, 2, 1)]
    assert reader.read == [1, 2, 1]
    assert [int(frame[0]) for frame in frames] == [1, 2, 1]


def test_threads_read_announced_frames(device):
    reader = Reader()
    store = FrameStore(reader, (SIZE,), device, 2 * SIZE, n_threads=2)
    order = [3, 0, 2, 1, 4, 2, 0, 1, 4, 3]
    for n, i in enumerate(order):
        store.announce(order[n + 1 : n + 5])
        assert (store.get(i) == i).all()
    store.close()
    assert threading.get_ident() in reader.threads and len(reader.threads) > 1
    assert reader.read.count(3) == 1  # it was the first and stays
    assert len(reader.read) <= len(order) - 1
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("decode") for name in names)
    store.announce([5])
    assert (store.get(5) == 5).all()
    store.close()


def test_announced_frames_are_held_until_they_are_used(device):
    reader = Reader()
    store = FrameStore(reader, (SIZE,), device, n_threads=1)
    while 7 not in store._passing:
        store.announce([7, 8])
    for i in range(3):
        store.get(i)
    assert (store.get(7) == 7).all()
    assert reader.read.count(7) == 1
    store.announce([])
    store.get(0)
    store.get(7)
    assert reader.read.count(7) == 2
    store.close()


def test_errors_are_raised_where_the_frame_is_used(device):
    store = FrameStore(Reader(), (SIZE,), device, n_threads=1)
    for i in range(12):
        store.announce([13])
        store.get(i)
    with pytest.raises(ValueError, match="frame 13 is damaged"):
        store.get(13)
    store.close()


def test_copies_are_waited_for_on_the_device(monkeypatch):
    """The order of calls on CUDA, with streams that only take notes."""
    calls = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def record_event(self):
            calls.append("copied")
            return "event"

        def wait_event(self, event):
            calls.append(f"{self.name} waits")

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("training"))
    empty = torch.empty

    def pinned(*shape, pin_memory, **options):
        assert pin_memory and threading.current_thread() is threading.main_thread()
        calls.append("pinned")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append(f"used by {stream.name}"))
    store = FrameStore(Reader(), (SIZE,), torch.device("cpu"), SIZE, n_threads=1)
    store._copy_stream = Stream("copies")
    first = ["pinned", "copied", "training waits", "used by training"]
    store.get(0)
    assert calls == first
    store.get(0)
    assert calls == first
    store.get(1)
    assert calls == first * 2
    store.get(0)
    store.get(1)  # it did not stay
    assert calls == first * 3
    while "copied" not in calls[12:]:
        store.announce([2])
    assert calls[12:] == first[:2]
    assert (store.get(2) == 2).all()
    assert calls == first * 4
    store.close()


def test_stores_copy_on_one_stream(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    device = torch.device("cuda", 7)
    stores = [FrameStore(Reader(), (SIZE,), device) for _ in range(2)]
    assert stores[0]._copy_stream is stores[1]._copy_stream


def test_memory_for_frames(monkeypatch):
    gib = 1 << 30
    assert default_frame_memory(torch.device("cpu")) == 2 * gib
    for free, expected in ((79, 37.5), (5.5, 0.75), (3, 0)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (int(free * gib), 80 * gib))
        assert default_frame_memory(torch.device("cuda", 0)) == expected * gib
