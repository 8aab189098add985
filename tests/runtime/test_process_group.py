"""Devices, precisions, and a world of one that changes nothing."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import torch

from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.runtime import precision, process_group
from resnetkit.runtime.device import choose_device, full_float32
from resnetkit.runtime.precision import choose_precision
from resnetkit.runtime.process_group import World, open_world

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def denormals_count() -> bool:
    return bool((torch.tensor([1e-39]) * 0.5).item() > 0)


def test_a_world_of_one_is_the_identity() -> None:
    alone = World(0, 1, CPU)
    values = torch.tensor([1.0, 2.0])
    model = torch.nn.Linear(2, 2)
    assert alone.is_main
    assert alone.gather(values).tolist() == [[1.0, 2.0]]
    assert alone.sum(values).tolist() == [1.0, 2.0]
    assert alone.any(False, True) == [False, True]
    assert alone.wrap(model) is model
    alone.broadcast_buffers(model)


def test_one_process_opens_a_world_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with open_world("cpu") as world:
        assert (world.rank, world.size, world.device) == (0, 1, CPU)


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_left_as_it_was(fails: bool) -> None:
    def use_world() -> None:
        with open_world("cpu"):
            torch.set_num_threads(2)
            assert not denormals_count()
            if fails:
                raise KeyError

    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    environment = dict(os.environ)
    assert denormals_count()
    if fails:
        with pytest.raises(KeyError):
            use_world()
    else:
        use_world()
    assert denormals_count()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert dict(os.environ) == environment


@pytest.mark.parametrize("device", ["gpu", "cpux", "", "tpu", "meta", "mps", "cuda:x", "cuda:-2"])
def test_an_unknown_device_is_refused(device: str, without_gpu: None) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(device)
    assert str(caught.value) == (f"unknown device '{device}': expected auto, cpu, cuda or cuda:N.")


@pytest.mark.parametrize(("device", "named"), [("cuda", "cuda:0"), ("cuda:3", "cuda:3")])
def test_a_gpu_that_is_not_there_is_refused(device: str, named: str, without_gpu: None) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(device)
    assert str(caught.value) == (
        f"there is no device '{named}' here: 0 GPUs were found. Use --device cpu, or auto."
    )


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, one_gpu: None, device: str
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert choose_device(device) == GPU
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError) as caught:
        choose_device(device)
    assert str(caught.value) == (
        "process 2 of this machine finds no GPU of its own: 1 GPU(s) were found. Start at most 1"
        " process(es) on this machine, or use --device cpu."
    )


def test_one_gpu_for_several_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, one_gpu: None
) -> None:
    assert choose_device("cuda:0") == GPU
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError) as caught:
        choose_device("cuda:0")
    assert str(caught.value) == (
        "process 2 of 2 on this machine computes on 'cuda:1', not on 'cuda:0'. With --device cuda"
        " each of them takes a GPU of its own."
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_may_name_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, one_gpu: None, rank: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert choose_device(f"cuda:{rank}") == torch.device("cuda", rank)


def test_auto_takes_the_cpu_where_there_is_no_gpu(without_gpu: None) -> None:
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    ("found", "name", "reason"),
    [
        ({"avx512_bf16": True}, "bfloat16", "this processor has avx512_bf16"),
        ({"amx_bf16": True, "avx512_bf16": True}, "bfloat16", "this processor has amx_bf16"),
        ({"avx512_bf16": False}, "float32", "this processor has no bfloat16 instructions"),
        ({}, "float32", "this processor has no bfloat16 instructions"),
    ],
)
def test_auto_takes_bfloat16_where_there_are_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, object], name: str, reason: str
) -> None:
    monkeypatch.setattr(precision, "cpu_capabilities", lambda: found)
    chosen = choose_precision("auto", CPU)
    assert (chosen.name, chosen.reason) == (name, reason)


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (None, {"avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16"}),
        ("ALL", {"avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16"}),
        ("AVX512_CORE_BF16", {"avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16"}),
        ("avx512_core", {"avx2", "avx_vnni", "avx512_f"}),
        ("AVX2", {"avx2", "avx_vnni"}),
        ("SSE41", set()),
    ],
)
def test_instructions_that_the_environment_denies_are_absent(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, left: set[str]
) -> None:
    names = ("avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True))
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert set(precision.cpu_capabilities()) == left


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(precision, "cpu_capabilities", dict)
    chosen = choose_precision(name, CPU)
    assert (chosen.name, chosen.reason) == (name, "the recipe asks for it")


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_the_forward_pass_computes_in_the_precision(name: str, dtype: torch.dtype) -> None:
    with choose_precision(name, CPU).autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def float32_precisions() -> list[str]:
    backends: Any = torch.backends
    return [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]


def older_switches() -> list[bool]:
    """Returns torch's older switches of TF32; it raises if they contradict the newer settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that they are deprecated
        return [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]


def set_older_switches(convolutions: bool, products: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


@pytest.fixture(params=[None, False, True])
def _chosen_tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves torch as it is, or uses its older switches of TF32."""
    backends: Any = torch.backends
    settings = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul]
    switches, precisions = older_switches(), [setting.fp32_precision for setting in settings]
    try:
        if request.param is not None:
            set_older_switches(request.param, request.param)
        yield
    finally:
        if request.param is not None:
            set_older_switches(*switches)
            for setting, precision_before in zip(settings, precisions, strict=True):
                setting.fp32_precision = precision_before


def inherited_precisions() -> list[str]:
    """Returns the precisions of a user who sets that of all operations to ieee."""
    backends: Any = torch.backends
    before = backends.cudnn.fp32_precision
    try:
        backends.cudnn.fp32_precision = "ieee"
        return float32_precisions()
    finally:
        backends.cudnn.fp32_precision = before


@pytest.mark.usefixtures("_chosen_tf32")
@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_computes_float32_in_full_precision(fails: bool) -> None:
    before, older, inherited = float32_precisions(), older_switches(), inherited_precisions()
    with nullcontext() if not fails else pytest.raises(KeyError), full_float32(GPU):
        assert float32_precisions() == ["ieee", "ieee"]
        if fails:
            raise KeyError
    assert float32_precisions() == before
    assert older_switches() == older
    assert inherited_precisions() == inherited
    with full_float32(CPU):
        assert float32_precisions() == before


def test_full_precision_lasts_until_its_last_user_is_done() -> None:
    before = float32_precisions()
    with ExitStack() as last:
        with full_float32(GPU):
            last.enter_context(full_float32(GPU))
        assert float32_precisions() == ["ieee", "ieee"]
    assert float32_precisions() == before


def test_a_world_on_a_gpu_computes_float32_in_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_group, "choose_device", lambda device: GPU)
    monkeypatch.setattr(process_group, "deterministic", lambda device: nullcontext())
    before = float32_precisions()
    with open_world("cuda"):
        assert float32_precisions() == ["ieee", "ieee"]
    assert float32_precisions() == before


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_rank_gives_signs_of_life_while_it_works(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    signs: list[bool] = []
    enough = threading.Event()

    def vote(self: World, done: bool) -> list[bool]:
        signs.append(done)
        if len(signs) == 3:
            enough.set()
        return [done]

    def work() -> None:
        assert enough.wait(timeout=60)
        if fails:
            raise DataError("an image is missing.")

    monkeypatch.setattr(World, "any", vote)
    monkeypatch.setattr(process_group, "SIGN_OF_LIFE", 0.001)
    with pytest.raises(DataError, match="missing") if fails else nullcontext():
        World(0, 2, CPU).main_first(work)
    assert len(signs) >= 3
    assert signs.count(True) == (not fails)
    assert signs[-1] is not fails


def test_the_other_ranks_wait_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = iter([[False], [False], [True]])
    monkeypatch.setattr(World, "any", lambda self, done: next(votes))
    World(1, 2, CPU).main_first(lambda: pytest.fail("this is the work of the first rank"))
    assert list(votes) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_first_rank_ends_at_once_although_it_works(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Ctrl-C, or another rank that is lost."""
    began, ended = threading.Event(), threading.Event()
    threads, finished = [], []

    def work() -> None:
        threads.append(threading.current_thread())
        began.set()
        finished.append(ended.wait(timeout=5))

    def vote(self: World, done: bool) -> list[bool]:
        assert began.wait(timeout=60)
        raise error

    monkeypatch.setattr(World, "any", vote)
    monkeypatch.setattr(process_group, "SIGN_OF_LIFE", 0.001)
    with pytest.raises(error):
        World(0, 2, CPU).main_first(work)
    assert finished == []
    ended.set()
    assert [thread.daemon for thread in threads] == [True]  # Python waits for the others
    threads[0].join()


GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer"


@pytest.mark.parametrize(
    "error", [RuntimeError(GLOO), torch.distributed.DistNetworkError("timed out")]
)
def test_a_lost_process_is_a_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(process_group, "join", lambda *_: None)
    with pytest.raises(ResnetkitError, match="process 1 of 2 has lost the others"), open_world():
        raise error


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "2", "WORLD_SIZE is 2, but the other processes cannot be found"),
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two': torchrun sets it to a number"),
        ("RANK", "-1", "RANK is '-1': torchrun sets it to a number"),
    ],
)
def test_an_environment_that_is_not_that_of_torchrun_is_a_sentence(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message), open_world("cpu"):
        pytest.fail("there is no world")


def test_an_empty_number_of_a_process_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", " ")
    with open_world("cpu") as world:
        assert (world.rank, world.size) == (0, 1)


def test_other_errors_of_several_processes_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(process_group, "join", lambda *_: None)
    with pytest.raises(RuntimeError, match="shapes differ"), open_world():
        raise RuntimeError("shapes differ")
