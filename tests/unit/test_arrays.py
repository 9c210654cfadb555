"""Arrays of others, and work shared among threads."""

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import beingh0_edge
from beingh0_edge import HandModel, _kernels, rotations
from beingh0_edge.arrays import Workers, as_array, shares
from beingh0_edge.rotations import axis_angle_to_matrix

HAND = Path(beingh0_edge.__file__).parent / "assets/hands/synthetic_right.npz"


class Foreign:
    """A tensor of another library: nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_tensors_of_others_are_seen_without_a_copy() -> None:
    array = np.arange(6, dtype=np.float32)
    assert np.shares_memory(as_array(Foreign(array)), array)
    assert as_array(array) is array
    assert as_array([1, 2]).tolist() == [1, 2]


def test_kernels_take_tensors_of_others_and_say_what_they_are() -> None:
    v = np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)
    assert np.array_equal(_kernels.axis_angle_to_matrix(Foreign(v)), axis_angle_to_matrix(v))  # type: ignore[arg-type]
    assert np.array_equal(rotations.axis_angle_to_quaternion(Foreign(v)),  # type: ignore[arg-type]
                          rotations.axis_angle_to_quaternion(v))
    with pytest.raises(ValueError, match=r"axis_angle: expected float32\[N, 3\], got float64\[5, 3\]"):
        _kernels.axis_angle_to_matrix(Foreign(v.astype(np.float64)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="incompatible"):
        _kernels.axis_angle_to_matrix([[0.0, 0.0, 0.0]])  # type: ignore[arg-type]


def test_a_tensor_that_numpy_cannot_see_is_refused_with_its_dtype_and_device() -> None:
    for strange, said in ((torch.zeros(1, 3, dtype=torch.bfloat16), "Tensor torch.bfloat16 cpu"),
                          (torch.zeros(1, 3, requires_grad=True), "Tensor torch.float32 cpu"),
                          (torch.zeros(1, 3, device="meta"), "Tensor torch.float32 meta")):
        for refuse in (as_array, _kernels.axis_angle_to_matrix):
            with pytest.raises(ValueError, match=f"without a gradient, got {said}: "):
                refuse(strange)


def test_kernels_read_and_write_tensors_in_place() -> None:
    hand = HandModel.load(HAND)
    pose, out = torch.rand(2, 48), torch.empty(2, 21, 3)
    expected = hand.forward(pose).joints
    hand._kernel.forward(pose.reshape(2, 16, 3), np.zeros(10, np.float32), None, "axis_angle", False, True, 0, out)
    assert np.array_equal(out.numpy(), expected)


@pytest.mark.parametrize(("items", "threads", "at_least", "expected"), [
    (10, 1, 1, [10]), (10, 3, 1, [3, 3, 4]), (10, 3, 4, [5, 5]), (3, 8, 4, [3]), (0, 4, 1, [0]), (2, 4, 1, [1, 1])])
def test_work_is_cut_evenly_and_not_too_small(items: int, threads: int, at_least: int, expected: list[int]) -> None:
    parts = shares(items, threads, at_least)
    assert [part.stop - part.start for part in parts] == expected
    assert parts[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(parts))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_threads_work_than_were_asked_for(threads: int) -> None:
    lock, running, most, names = threading.Lock(), 0, 0, set()
    together = threading.Barrier(threads)

    def task(first: bool) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            names.add(threading.get_ident())
        if first:
            together.wait(10)
        with lock:
            running -= 1

    workers = Workers(threads)
    workers.run([lambda i=i: task(i < threads) for i in range(5 * threads)])  # type: ignore[misc]
    assert most == threads
    assert len(names) == threads
    assert threading.get_ident() in names


def test_a_failing_task_is_raised_after_all_are_done() -> None:
    done = []

    def fail() -> None:
        raise RuntimeError("the second")

    with pytest.raises(RuntimeError, match="the second"):
        Workers(2).run([lambda: done.append(1), fail, lambda: done.append(3), lambda: done.append(4)])
    assert sorted(done) == [1, 3, 4]


@pytest.mark.parametrize("threads", [0, -1, 257, 1.5, "2", True])
def test_a_silly_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads: expected a whole number from 1 to 256, got {threads!r}"):
        Workers(threads)
    with pytest.raises(ValueError, match="threads: expected a whole number from 1 to 256"):
        HandModel({}, threads=threads)
