"""No tensor is on the wrong device: what runs on a pretended GPU (`pretended_cuda`) has the records of the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from favor_lab.activities.fewshot import FewShot
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.vlm.loading import load_policy
from tiny import LABELS

SHORT = GRPOSettings(steps=2, prompts_per_step=2, group_size=3, max_new_tokens=8, learning_rate=1e-2)

# --------------------------------------------------------------------------------------------- the pretended device


def test_tensors_on_two_devices_do_not_meet(cuda):
    here, there = torch.arange(6.0), torch.arange(6.0, device="cuda")
    assert there.device == torch.device("cuda:0") and there.is_cuda and not there.is_cpu and here.is_cpu
    for meet in (
        lambda: here + there,
        lambda: there.add_(here),
        lambda: torch.cat([there, here]),
        lambda: torch.stack([there.sum(), here.sum()]),
        lambda: there.masked_fill(here > 2, 0.0),
        lambda: here[there.long()],
        lambda: there.__setitem__([0, 1], here[:2]),
        lambda: torch.nn.functional.linear(there, here),
        lambda: torch.nn.Linear(6, 2).to("cuda")(here),
    ):
        with pytest.raises(RuntimeError, match="on the same device"):
            meet()
    assert (there + here.sum()).is_cuda, "a CPU scalar may"
    assert torch.equal(there[here.long()].cpu(), here), "and a CPU index"


def test_where_a_tensor_is_stays_with_its_memory(cuda):
    linear = torch.nn.Linear(3, 2).to("cuda")
    assert linear.weight.is_cuda and linear.weight.T[0].data.detach().device.type == "cuda"
    linear(torch.ones(1, 3, device=linear.weight.device)).sum().backward()
    assert linear.weight.grad.is_cuda and torch.zeros_like(linear.bias).is_cuda
    assert linear.weight.new_zeros(2).is_cuda and not torch.zeros(2).is_cuda
    copy = linear.weight.cpu()
    assert not copy.is_cuda and copy.data_ptr() != linear.weight.data_ptr()
    assert linear.cpu().weight.device.type == "cpu"
    before = torch.cuda.memory_allocated()
    large = torch.zeros(1000, device="cuda")
    assert torch.cuda.memory_allocated() == before + large.nbytes == torch.cuda.max_memory_allocated()
    del large
    assert torch.cuda.memory_allocated() == before


def test_numpy_refuses_a_tensor_on_the_gpu(cuda):
    there = torch.arange(3, device="cuda")
    for refused in (there.numpy, lambda: np.asarray(there), lambda: np.stack([there, there])):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            refused()
    assert np.asarray(there.cpu()).tolist() == [0, 1, 2]


def test_a_generator_belongs_to_its_device(cuda):
    drawn = torch.rand(3, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    assert drawn.is_cuda and torch.equal(drawn.cpu(), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_what_makes_the_host_wait_is_counted(cuda):
    there = torch.arange(6, device="cuda")
    before = len(cuda.syncs)
    for waits in (
        lambda: there.sum().item(),
        lambda: there.tolist(),
        lambda: bool(there.any()),
        lambda: int(there.max()),
        lambda: there.nonzero(),
        lambda: there[there > 2],
        lambda: there[[0, 1]],
        lambda: there[there[1]],
        lambda: there.unique(),
        lambda: there.cpu(),
        lambda: torch.arange(3).to("cuda"),
        lambda: torch.tensor([1, 2], device="cuda"),
        lambda: there.copy_(torch.arange(6)),
        lambda: torch.equal(there, there),
        lambda: there.repeat_interleave(there),
        torch.cuda.synchronize,
    ):
        waits()
        assert len(cuda.syncs) == before + 1, waits
        before += 1
    there[there > 2] = 0
    there[0], there[there.clone()] = 5, 1
    torch.where(there > 2, there, 0).repeat_interleave(2).float().cumsum(0).sort()
    torch.arange(3).pin_memory().to("cuda", non_blocking=True)
    torch.arange(6).sum().item()
    assert len(cuda.syncs) == before


def test_a_graph_is_a_tape(cuda):
    """What a capture reads is read again in each replay, from where it was; a capture itself computes nothing."""
    static, other = torch.ones(2, device="cuda"), torch.zeros(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = (static * 2)[1:]
        other.add_(static)
    assert result.isnan().all() and other.tolist() == [0.0, 0.0]
    graph.replay()
    assert result.tolist() == [2.0] and other.tolist() == [1.0, 1.0]
    static.fill_(5.0)
    graph.replay()
    assert result.tolist() == [10.0] and other.tolist() == [6.0, 6.0]
    static = torch.zeros(2, device="cuda")  # another storage, which the graph does not know
    graph.replay()
    assert result.tolist() == [10.0]
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), torch.cuda.graph(graph):
        static.sum().item()


# --------------------------------------------------------------------------------------------------------- training


def even_ids(completion_ids, **columns):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def timeless(records):
    return [{name: value for name, value in record.to_dict().items() if name != "seconds"} for record in records]


@pytest.fixture
def shots(tiny_examples):
    return FewShot(train=tiny_examples, validation=[], test=[], labels=LABELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch": 2}, {"gradient_checkpointing": True}, {"offload_tower": True}, {"updates_per_rollout": 2},
     {"decoding": "plain", "scoring": "plain"}, {"level": "sequence"}, {"beta": 0.0}, {"skip_flat_groups": True}]
    + [{"how": how} for how in ("bnpo", "dr_grpo", "dapo", "cispo")],
    ids=str,
)  # fmt: skip
def test_training_is_that_of_the_cpu(cuda, tiny_checkpoint, shots, changes):
    records = {}
    for device in ("cpu", "cuda"):
        policy = load_policy(tiny_checkpoint, lora_rank=4, device=device, check=False)
        records[device] = timeless(train(policy, shots, replace(SHORT, **changes), rewards=[even_ids]))
    assert records["cuda"] == records["cpu"]
    assert records["cpu"][0]["grad_norm"] > 0
