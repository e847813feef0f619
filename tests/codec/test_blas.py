"""One thread for matrix products, in nested and simultaneous contexts."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from smalti.codec.blas import one_blas_thread


def blas_threads() -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_threads_are_one_inside_and_as_before_outside() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with one_blas_thread():
            assert set(blas_threads()) == {1}
            with one_blas_thread():
                pass
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(ValueError, match="x"), one_blas_thread():
            raise ValueError("x")
        assert blas_threads() == before


def test_contexts_of_several_threads_leave_nothing_behind() -> None:
    with threadpool_limits(2, user_api="blas"):
        before, entered, leave = blas_threads(), threading.Event(), threading.Event()

        def other() -> None:
            with one_blas_thread():
                entered.set()
                leave.wait(60)

        thread = threading.Thread(target=other)
        with one_blas_thread():
            thread.start()
            entered.wait(60)
            assert set(blas_threads()) == {1}
        leave.set()
        thread.join()
        assert blas_threads() == before
