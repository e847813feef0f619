"""Law: whatever contexts overlap, every thread goes back to the number of threads from before."""

from __future__ import annotations

import threading

import torch

from smalti.runtime.threads import one_torch_thread


def test_contexts_in_each_other_and_in_other_threads_give_the_number_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    entered, leave = threading.Event(), threading.Event()
    seen: list[int] = []

    def work() -> None:
        with one_torch_thread():
            seen.append(torch.get_num_threads())
            entered.set()
            assert leave.wait(10)
        seen.append(torch.get_num_threads())

    try:
        thread = threading.Thread(target=work)
        with one_torch_thread():
            thread.start()
            assert entered.wait(10)
            with one_torch_thread():
                assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        leave.set()
        thread.join(10)
        assert seen == [1, 2]
        assert torch.get_num_threads() == 2
    finally:
        leave.set()
        torch.set_num_threads(before)


def test_an_exception_gives_the_number_back() -> None:
    before = torch.get_num_threads()
    try:
        with one_torch_thread():
            raise KeyError
    except KeyError:
        assert torch.get_num_threads() == before
